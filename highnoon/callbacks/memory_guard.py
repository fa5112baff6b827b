"""A memory guard for any Keras model. The one callback that imports Keras, so that the loggers need not."""

from __future__ import annotations

from typing import Any

import keras

from highnoon.memory import EnterpriseMemoryManager
from highnoon.shared.domain.errors import TrialStopped


class MemoryGuardCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Guards the memory of `fit`, step by step. Raises TrialStopped out of it, with the cause `memory_guard`.

    Takes a manager, or the settings of one (`memory_warning_pct`, `memory_grace_steps`, ...) as keywords. Put
    `fit` into `with manager:` to have memory given back after failures of other kinds as well.
    """

    reads_logs = False
    """`hn.Trainer` then need not wait for the device at each step to give it the loss."""

    def __init__(self, manager: EnterpriseMemoryManager | None = None, **settings: Any) -> None:
        super().__init__()
        if manager is not None and settings:
            raise TypeError(f"a manager has its settings already: {', '.join(settings)}")
        self.manager = manager or EnterpriseMemoryManager(**settings)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """One step of training."""
        self._step()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """One step of validation: its batches are often larger."""
        self._step()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The guide's cleanup."""
        self.manager.end_epoch()

    def _step(self) -> None:
        try:
            self.manager.step()
        except TrialStopped:
            self.manager.release()
            raise
