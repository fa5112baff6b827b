"""The kernel's small text files, below a root that tests may choose. Owns how they are spelled, not what they mean."""

from __future__ import annotations

import os
from pathlib import Path

_READ_AT_ONCE = 65536
"""More than any file read here has; a kernel file is read whole or may change in between."""


class KernelFiles:
    """Files of /proc and /sys below `root`. Reading what is not there, or may not be read, gives None."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = "" if root == Path("/") else str(root)
        self._kept: dict[str, int] = {}

    def __del__(self) -> None:
        self.let_go()

    def text(self, path: str) -> str | None:
        """The whole file; None when it cannot be read. `path` is absolute, as the kernel has it."""
        try:
            # Not pathlib: this runs between two training steps, and costs a third of it.
            descriptor = os.open(f"{self._root}{path}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.read(descriptor, _READ_AT_ONCE).decode(errors="replace")
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def text_again(self, path: str) -> str | None:
        """As `text`, for a file that is read time and again: it stays open until `let_go`, which saves half the price.

        The kernel writes such a file anew for each reading from its beginning.
        """
        descriptor = self._kept.get(path)
        try:
            if descriptor is None:
                descriptor = self._kept[path] = os.open(f"{self._root}{path}", os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(descriptor, _READ_AT_ONCE, 0).decode(errors="replace")
        except OSError:
            return None

    def let_go(self) -> None:
        """Closes what `text_again` keeps open: processes come and go, and their files with them."""
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._kept.clear()

    def number(self, path: str) -> int | None:
        """The one number in a file; None also for the word `max`."""
        text = self.text(path)
        return int(text) if text is not None and text.strip().isdigit() else None

    def table(self, path: str) -> dict[str, int] | None:
        """Lines of a name and a number, sizes in kB turned into bytes; None when the file cannot be read."""
        text = self.text(path)
        if text is None:
            return None
        found = {}
        for line in text.splitlines():
            name, *words = line.split() or [""]
            if words and words[0].isdigit():
                found[name.rstrip(":")] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
        return found

    def names(self, path: str) -> list[str]:
        """What a folder holds; nothing when it cannot be read."""
        try:
            return os.listdir(f"{self._root}{path}")  # noqa: PTH208
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """True for a file or folder that is there."""
        return Path(f"{self._root}{path}").exists()
