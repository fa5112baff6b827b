"""The folder that a training writes its checkpoints into: which ones stay, and which one `latest` points at.

Outside of trials only checkpoints of the training that writes here, or that it continues, are ever removed. Trials may
share a folder: there the newest of all of them stay, as many as of one training. `checkpointing` writes one.
"""

from __future__ import annotations

import warnings
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from highnoon.lm.training.checkpointing import LATEST, write_whole
from highnoon.lm.training.whole_folder import remove, sync
from highnoon.rehearsal import is_rehearsal
from highnoon.shared.objective.trial_context import is_trial_running

KEPT = 3
"""How many stay; older ones of the same training are removed once a newer one is whole."""

_EARLIER = "earlier"


def writing_into(path: Path | None, continues: Path | None, step: int) -> CheckpointFolder | None:
    """The folder of a training that begins at `step`, None without a path. Warns of other checkpoints in it."""
    if path is None:
        return None
    folder = CheckpointFolder(path, continues, step, in_trial=is_trial_running() or is_rehearsal())
    folder.warn_of_foreign()
    return folder


class CheckpointFolder:
    """Writes `step-N` for a training that continues the checkpoint `continues`, which was written at `step`.

    A folder may hold checkpoints of another training, for instance yesterday's finished model. The first save moves
    them to a folder `earlier-N` in it, together with their `latest`. A trial leaves them there: they may belong to
    another one that runs, and a folder for each trial of a study would fill the disk.
    """

    def __init__(self, path: Path, continues: Path | None, step: int, *, in_trial: bool) -> None:
        self.path = path
        self._in_trial = in_trial
        is_here = continues is not None and continues.parent == path.resolve()
        self._last_continued = step if is_here else -1
        self._is_cleared = False

    def warn_of_foreign(self) -> None:
        """Called before the first step, so that a person can resume instead, or choose another folder."""
        if not self._in_trial and self._foreign():
            warnings.warn(
                f"{self.path} holds checkpoints that this training does not continue: its first save moves them to "
                f'{self._folder_for_foreign()}. To continue the newest one, give resume_from="latest".',
                stacklevel=4,
            )

    def write(self, step: int, model: Any, optimizer: Any, state: dict[str, Any]) -> Path:
        """Writes `step-N`, points `latest` at it, removes the oldest; returns its path. Raises OSError."""
        if not self._is_cleared and not self._in_trial:
            self._move_foreign()
            self._is_cleared = True
        final = self.path / f"step-{step:08d}"
        write_whole(final, model, optimizer, state)
        fresh = self.path / f".{LATEST}-{uuid4().hex}"
        fresh.symlink_to(final.name)
        fresh.replace(self.path / LATEST)
        sync(self.path)
        checkpoints = sorted(self._checkpoints(), key=_written_at) if self._in_trial else self._checkpoints()
        others = [found for found in checkpoints if found != final]
        remove(*others[: 1 - KEPT])
        return final

    def _foreign(self) -> list[Path]:
        """Checkpoints that the training does not continue, oldest first; also its own after the resumed step."""
        return [found for found in self._checkpoints() if _step_of(found) > self._last_continued]

    def _folder_for_foreign(self) -> Path:
        candidates = (self.path / f"{_EARLIER}-{number}" for number in count(1))
        return next(candidate for candidate in candidates if not candidate.exists())

    def _move_foreign(self) -> None:
        moved = self._foreign()
        if not moved:
            return
        folder, latest = self._folder_for_foreign(), self.path / LATEST
        newest = latest.resolve()
        folder.mkdir()
        for checkpoint in moved:
            checkpoint.rename(folder / checkpoint.name)
        if newest.name in {checkpoint.name for checkpoint in moved}:
            latest.rename(folder / LATEST)
        sync(folder)
        sync(self.path)

    def _checkpoints(self) -> list[Path]:
        found = [path for path in self.path.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
        return sorted(found, key=_step_of)


def _written_at(checkpoint: Path) -> int:
    """In nanoseconds; 0 for one that another trial has removed meanwhile."""
    try:
        return checkpoint.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
