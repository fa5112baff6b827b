"""The folder in which a running trial keeps its checkpoints, and whether anybody will ever find them there.

In a worker the folder belongs to the ticket: the attempt after a lost one finds what that one had saved. In process
nothing is tried again, and the folder is a temporary one. What is in it is the business of whoever saves.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path


class CheckpointFolder:
    """Made when it is first asked for, so that a trial that saves nothing leaves nothing."""

    def __init__(self, lasting: Path | None) -> None:
        self._lasting = lasting
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._trainings = itertools.count(1)

    @property
    def outlives_its_attempt(self) -> bool:
        """False where no other attempt would follow a lost one."""
        return self._lasting is not None

    def path(self) -> Path:
        """The folder itself. Raises OSError when it cannot be made."""
        if self._lasting is not None:
            _make(self._lasting)
            return self._lasting
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="highnoon-trial-")
        return Path(self._temporary.name)

    def for_next_training(self) -> Path:
        """A folder for each training of the trial, in their order, so that none goes on where another had stopped."""
        return self.path() / f"training-{next(self._trainings)}"

    def close(self) -> None:
        """The trial is over: a temporary folder goes. Others are removed by whoever holds the ticket."""
        if self._temporary is not None:
            self._temporary.cleanup()


def _make(folder: Path) -> None:
    while not folder.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # another trial's end has just removed a parent that was empty until now
            continue
