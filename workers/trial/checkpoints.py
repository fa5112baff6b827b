"""The checkpoints of a ticket on this node: they outlive its attempts, and are removed when the ticket is closed.

    home/checkpoints/<study>/ticket-00007/attempt-2/    the running attempt's; its trial process makes it

Each attempt has a folder of its own, into which the one before it is renamed: a trial whose lease was lost writes
beside its successor's files and never into them. Owns names and removal; the trial decides what is saved, and
`leftovers` removes the checkpoints of studies that are over.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path


class TicketCheckpoints:
    """One ticket's folder. Raises OSError for a disk that refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder_of(self, attempt: int) -> Path:
        """Where the checkpoints of this attempt are, made or not."""
        return self._folder / f"attempt-{attempt}"

    def begin(self, attempt: int) -> Path:
        """Where this attempt's checkpoints go, with what was fetched or the attempts before it have saved here."""
        own = self.folder_of(attempt)
        if (before := self._latest()) is not None:
            before.rename(own)
        return own

    def has_since(self, attempt: int) -> bool:
        """Whether what this attempt or a later one has saved is here."""
        return any(number >= attempt and any(folder.iterdir()) for number, folder in self._folders())

    def leave(self) -> None:
        """The ticket may be tried again: keeps what is saved, removes empty folders."""
        for folder in [*self._folder.glob("attempt-*"), self._folder, self._folder.parent]:
            _remove_if_empty(folder)

    def remove(self) -> None:
        """The ticket is closed: removes everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
        _remove_if_empty(self._folder.parent)

    def _latest(self) -> Path | None:
        return max(self._folders(), default=(0, None))[1]

    def _folders(self) -> list[tuple[int, Path]]:
        """With their attempts. The trial may have put anything beside them, such as `attempt-1.zip`."""
        found = ((path.name.removeprefix("attempt-"), path) for path in self._folder.glob("attempt-*"))
        return [(int(number), path) for number, path in found if number.isdecimal() and path.is_dir()]


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
