"""The folder that a training writes its checkpoints into: which ones stay, and which one `latest` points at.

Only checkpoints of the training that writes here, or that it continues, are ever removed. `checkpointing` writes one.
"""

from __future__ import annotations

import warnings
from itertools import count
from pathlib import Path
from typing import Any

from highnoon.lm.training.checkpointing import LATEST, remove, sync, write_whole

KEPT = 3
"""How many stay; older ones of the same training are removed once a newer one is whole."""

_EARLIER = "earlier"


def writing_into(path: Path | None, continues: Path | None, step: int) -> CheckpointFolder | None:
    """The folder of a training that begins at `step`, None without a path. Warns of other checkpoints in it."""
    if path is None:
        return None
    folder = CheckpointFolder(path, continues, step)
    folder.warn_of_foreign()
    return folder


class CheckpointFolder:
    """Writes `step-N` for a training that continues the checkpoint `continues`, which was written at `step`.

    A folder may hold checkpoints of another training, for instance yesterday's finished model. The first save moves
    them to a folder `earlier-N` in it, together with their `latest`.
    """

    def __init__(self, path: Path, continues: Path | None, step: int) -> None:
        self.path = path
        is_here = continues is not None and continues.parent == path.resolve()
        self._last_continued = step if is_here else -1
        self._is_cleared = False

    def warn_of_foreign(self) -> None:
        """Called before the first step, so that a person can resume instead, or choose another folder."""
        if self._foreign():
            warnings.warn(
                f"{self.path} holds checkpoints that this training does not continue: its first save moves them to "
                f'{self._place_for_foreign()}. To continue the newest one, give resume_from="latest".',
                stacklevel=4,
            )

    def write(self, step: int, model: Any, optimizer: Any, state: dict[str, Any]) -> Path:
        """Writes `step-N`, points `latest` at it, removes the oldest; returns its path. Raises OSError."""
        if not self._is_cleared:
            self._move_foreign()
            self._is_cleared = True
        final = self.path / f"step-{step:08d}"
        write_whole(final, model, optimizer, state)
        fresh = self.path / f".{LATEST}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(final.name)
        fresh.replace(self.path / LATEST)
        sync(self.path)
        others = [found for found in self._checkpoints() if found != final]
        remove(*others[: 1 - KEPT])
        return final

    def _foreign(self) -> list[Path]:
        """Those that the training does not continue, oldest first; also its own of steps after the resumed one."""
        return [found for found in self._checkpoints() if _step_of(found) > self._last_continued]

    def _place_for_foreign(self) -> Path:
        candidates = (self.path / f"{_EARLIER}-{number}" for number in count(1))
        return next(candidate for candidate in candidates if not candidate.exists())

    def _move_foreign(self) -> None:
        moved = self._foreign()
        if not moved:
            return
        place, latest = self._place_for_foreign(), self.path / LATEST
        newest = latest.resolve()
        place.mkdir()
        for checkpoint in moved:
            checkpoint.rename(place / checkpoint.name)
        if newest.name in {checkpoint.name for checkpoint in moved}:
            latest.rename(place / LATEST)
        sync(place)
        sync(self.path)

    def _checkpoints(self) -> list[Path]:
        found = [path for path in self.path.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
        return sorted(found, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
