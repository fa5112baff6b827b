"""The checkpoints of trials in this process that go on from one another (the sampler pbt), in a temporary folder."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from highnoon.shared.store.point_choice import LastCheckpoints


class LocalCheckpoints:
    """One folder for each trial of one call of `optimize`, by its number. Raises OSError for a disk that refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.begun: set[int] = set()
        """The numbers of trials of this call."""

    def begin(self, number: int, extends: int | None) -> Path:
        """Returns the trial's folder, made or not; it has a copy of what the trial that it goes on from has left."""
        self.begun.add(number)
        own = self._folder_of(number)
        if extends is not None:
            shutil.copytree(self._folder_of(extends), own, symlinks=True)
        return own

    def read(self) -> LastCheckpoints:
        """Those that trials of this call have left."""
        return LastCheckpoints(kept=dict.fromkeys(self._numbers()), of_call=self.begun)

    def keep_only(self, numbers: Collection[int]) -> None:
        """Removes the folders of all other trials."""
        for number in self._numbers() - set(numbers):
            shutil.rmtree(self._folder_of(number), ignore_errors=True)

    def _numbers(self) -> set[int]:
        return {int(folder.name) for folder in self._folder.glob("*") if any(folder.iterdir())}

    def _folder_of(self, number: int) -> Path:
        return self._folder / str(number)
