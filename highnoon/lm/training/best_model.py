"""The best model of a training in a trial: its artifact, and a copy that a later attempt of the trial finds.

training-1/   step-00001200/        a checkpoint
              best-00000003.keras   the model of the epoch of that number, counted over all stages

Artifacts of an attempt that is lost are discarded with it, and a trial of population-based training begins with the
checkpoint of another one. So the copy lies beside the checkpoints. Its name has the epoch, since a checkpoint may be
older than it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from highnoon import current_trial
from highnoon.lm.training.whole_folder import sync

BEST_MODEL = "model.keras"
"""The artifact's name; `keras.saving.load_model` reads it."""

_DRAFT = "best-draft.keras"


class BestModel:
    """Saves the model of the best epoch of the current stage. Raises OSError, and what `save_artifact` raises.

    `folder` is the trial's own for this training, None where no other attempt would read it. `history` is all epochs of
    the training so far, those before a resume included.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._first = 0
        """The first epoch that counts: the models of those before are not there."""

    def begin(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Saves the best model of the epochs before a resume, where it was kept."""
        if not history:
            return
        kept = None if self._folder is None else _path(self._folder, self._best(history))
        if kept is not None and kept.is_file():
            current_trial.save_artifact(kept, BEST_MODEL)
        else:
            self._first = len(history)

    def end_epoch(self, model: Any, history: Sequence[Mapping[str, Any]]) -> None:
        """Saves the model if its epoch, the last one, is the best."""
        number = len(history) - 1
        if self._best(history) != number:
            return
        with TemporaryDirectory() as temporary:
            draft = (self._folder or Path(temporary)) / _DRAFT
            draft.parent.mkdir(parents=True, exist_ok=True)
            model.save(draft)
            current_trial.save_artifact(draft, BEST_MODEL)
            if self._folder is not None:
                sync(draft)
                draft.replace(_path(self._folder, number))

    def checkpoint_saved(self, history: Sequence[Mapping[str, Any]]) -> None:
        """The newest checkpoint has all these epochs: removes the models of others."""
        if self._folder is None or not history:
            return
        for path in self._folder.glob("best-*.keras"):
            if path != _path(self._folder, self._best(history)):
                path.unlink()

    def _best(self, history: Sequence[Mapping[str, Any]]) -> int:
        stage = history[-1]["stage"]
        numbers = [number for number, one in enumerate(history) if number >= self._first and one["stage"] == stage]
        return min(numbers, key=lambda number: history[number]["val_loss"], default=-1)


def _path(folder: Path, number: int) -> Path:
    return folder / f"best-{number:08d}.keras"
