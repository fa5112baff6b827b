"""Who hears of a training's course: functions as in the guide, Keras callbacks, the study that a trial belongs to.

Nothing that a listener raises is swallowed: a TrialPruned ends the training and reaches the objective's caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from highnoon import running
from highnoon.memory import EnterpriseMemoryManager
from highnoon.shared.domain.errors import InvalidInput, Problem, TrialPruned, TrialStopped


class Listener:
    """Hears everything and does nothing; whoever listens overrides what it cares about."""

    def train_begins(self, model: Any, epochs_done: int) -> None:
        """Once, before the first step; a resumed training has done some epochs of all stages already."""

    def epoch_begins(self, stage: str, epoch: int, tokens_per_step: int) -> None:
        """Also when an epoch is continued."""

    def step_ends(self, step: int, loss: Callable[[], float]) -> None:
        """After each step; calling `loss` gives the epoch's mean so far, and waits for the device."""

    def validated(self, step: int, val_loss: float) -> None:
        """A validation in the midst of an epoch."""

    def epoch_ends(self, entry: dict[str, Any]) -> None:
        """`entry` is the epoch's record in the history."""

    def stage_completes(self, record: dict[str, Any]) -> None:
        """`record` is the stage's record in the summary."""

    def checkpoint_saved(self, path: str, step: int) -> None:
        """The checkpoint is whole."""

    def train_ends(self) -> None:
        """Once, after a training that nothing interrupted."""

    def asks_to_stop(self) -> bool:
        """Asked after each epoch; True ends the training there."""
        return False


class FunctionListener(Listener):
    """A function that gets a dict with the key `event`."""

    def __init__(self, function: Callable[[dict[str, Any]], object]) -> None:
        self._function = function

    def epoch_ends(self, entry: dict[str, Any]) -> None:
        self._function({"event": "epoch_end", **entry})

    def stage_completes(self, record: dict[str, Any]) -> None:
        self._function({"event": "stage_complete", "stage": record["name"], "metrics": dict(record)})

    def checkpoint_saved(self, path: str, step: int) -> None:
        self._function({"event": "checkpoint_saved", "path": path, "step": step})


class KerasListener(Listener):
    """A Keras callback: training, epochs and ends of batches. Epochs are counted over all stages.

    The learning rate stays the schedule's: a callback that would set it has no optimizer to set it in.
    """

    def __init__(self, callback: Any) -> None:
        from keras.callbacks import Callback

        self._callback = callback
        self._hears_steps = type(callback).on_train_batch_end is not Callback.on_train_batch_end or (
            type(callback).on_batch_end is not Callback.on_batch_end
        )
        self._model: Any = None
        self._epoch = 0
        self._batch = 0

    def train_begins(self, model: Any, epochs_done: int) -> None:
        self._model = model
        self._epoch = epochs_done
        model.stop_training = False
        self._callback.set_model(model)
        self._callback.on_train_begin({})

    def epoch_begins(self, stage: str, epoch: int, tokens_per_step: int) -> None:
        self._batch = 0
        self._callback.on_epoch_begin(self._epoch, {})

    def step_ends(self, step: int, loss: Callable[[], float]) -> None:
        if self._hears_steps:
            self._callback.on_train_batch_end(self._batch, {"loss": loss()})
        self._batch += 1

    def epoch_ends(self, entry: dict[str, Any]) -> None:
        logs = {"loss": entry["train_loss"], "val_loss": entry["val_loss"]}
        self._callback.on_epoch_end(self._epoch, logs)
        self._epoch += 1

    def train_ends(self) -> None:
        self._callback.on_train_end({})

    def asks_to_stop(self) -> bool:
        return bool(self._model.stop_training)


class StudyListener(Listener):
    """Reports each epoch's validation loss to the trial that runs here. Raises TrialPruned, and NoTrialRunning.

    Epochs before a resume are reported, too: an attempt that goes on is a new Optuna trial, and needs the whole curve.
    """

    def __init__(self, history: Sequence[dict[str, Any]]) -> None:
        self._before = tuple(history)
        self._epoch = len(history)

    def train_begins(self, model: Any, epochs_done: int) -> None:
        for epoch, entry in enumerate(self._before):
            running.report(entry["val_loss"], epoch)

    def epoch_ends(self, entry: dict[str, Any]) -> None:
        running.report(entry["val_loss"], self._epoch)
        if running.should_prune():
            raise TrialPruned(f"not promising at epoch {self._epoch}: validation loss {entry['val_loss']:.4f}")
        self._epoch += 1


class MemoryListener(Listener):
    """Steps the memory guard. Raises TrialStopped, after giving back what Keras holds, when the training must end."""

    def __init__(self, manager: EnterpriseMemoryManager) -> None:
        self.manager = manager

    def step_ends(self, step: int, loss: Callable[[], float]) -> None:
        try:
            self.manager.step()
        except TrialStopped:
            self.manager.release()
            raise

    def epoch_ends(self, entry: dict[str, Any]) -> None:
        self.manager.end_epoch()


def listener_for(callback: Any) -> Listener:
    """Whatever `add_callback` was given. Raises InvalidInput for what is neither function nor Keras callback."""
    if isinstance(callback, Listener):
        return callback
    if hasattr(callback, "set_model") and hasattr(callback, "on_epoch_end"):
        return KerasListener(callback)
    if callable(callback):
        return FunctionListener(callback)
    message = "must be a function that takes a dict, or a Keras callback"
    raise InvalidInput("add_callback()", [Problem(key="callback", message=message, value=callback)])
