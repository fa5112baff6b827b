"""What a trial process prints: kept in a file of bounded size, its tail kept in memory for the database.

The newest output is worth most and the first lines explain the start, so a full file is rotated once: at most
two files of half the limit each stay on the disk, whatever the objective prints (the first may have the whole limit,
where a second one was refused).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 16
_PIPE_BYTES = 1 << 20


class Output:
    """The reading end of one attempt's stdout and stderr."""

    def __init__(self, path: Path, *, limit_bytes: int, tail_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._full = path.with_name(path.name + ".1")
        self._half = limit_bytes // 2
        self._tail_bytes = tail_bytes
        self._tail = b""
        self._written = 0
        self._file: BinaryIO = path.open("wb", buffering=0)
        # The first part of an older trial: a study of the same name was deleted.
        self._full.unlink(missing_ok=True)
        self._reading, self.writing_end = os.pipe()
        os.set_blocking(self._reading, False)
        _widen(self._reading)
        self.ended = False
        self._released = False

    def fileno(self) -> int:
        """For select."""
        return self._reading

    def release_writing_end(self) -> None:
        """Closes our copy, which would keep the pipe open for ever: the trial has its own now."""
        if not self._released:
            os.close(self.writing_end)
            self._released = True

    def drain(self, *, at_most_bytes: int = 8 * _PIPE_BYTES) -> None:
        """Takes what has come, without waiting."""
        taken = 0
        while taken < at_most_bytes:
            try:
                chunk = os.read(self._reading, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                self.ended = True
                return
            taken += len(chunk)
            self._keep(chunk)

    def add(self, line: str) -> None:
        """Adds a line of the supervisor's own."""
        self._keep(line.encode())

    def tail(self) -> str:
        """The last output, whole lines where possible."""
        text = self._tail.decode("utf-8", errors="replace")
        cut = len(self._tail) >= self._tail_bytes and "\n" in text
        return (text.partition("\n")[2] if cut else text).replace("\x00", "�")

    def close(self) -> None:
        """Closes file and pipe; the tail stays readable."""
        self._file.close()
        os.close(self._reading)
        self.release_writing_end()

    def _keep(self, chunk: bytes) -> None:
        kept = self._tail + chunk
        self._tail = kept[max(0, len(kept) - self._tail_bytes) :]
        # No training ends because a disk is full: what the file lacks, the tail still has.
        with contextlib.suppress(OSError):
            is_full = self._written + len(chunk) > self._half and not self._has_rotated()
            if not is_full or self._written + len(chunk) <= 2 * self._half:
                self._file.write(chunk)
                self._written += len(chunk)

    def _has_rotated(self) -> bool:
        """False where there is no new file, as on a full disk: the old one stays in use, up to the whole limit."""
        full = self._file
        try:
            # Renamed by an earlier try, perhaps.
            with contextlib.suppress(FileNotFoundError):
                self.path.replace(self._full)
            self._file = self.path.open("wb", buffering=0)
        except OSError:
            return False
        self._written = 0
        with contextlib.suppress(OSError):  # a full disk may be reported only here
            full.close()
        return True


def _widen(descriptor: int) -> None:
    """A larger pipe, so that a trial that prints a lot seldom waits for its supervisor."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
