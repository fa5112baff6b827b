"""A trial's log: its last lines, and what it still gets while the trial runs.

Reads the file on this host; of another host there is only the end, which the ledger keeps. Workers write the logs, and
rotate them once to `NAME.1`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from highnoon.shared.store.attempt_records import AttemptRecord

_LINES = 40
_LOOK_S = 0.3


def is_elsewhere(attempt: AttemptRecord) -> bool:
    """Whether it ran on another host, so that a file of that name here would be another one."""
    return attempt.host != socket.gethostname()


def last_lines(attempt: AttemptRecord, count: int | None) -> list[str]:
    """The newest lines of what it printed: from its file, else from the ledger."""
    text = _text(attempt) or attempt.log_tail or ""
    wanted = _LINES if count is None else count
    return text.rstrip().splitlines()[-wanted:] if wanted else []


def follow(
    look: Callable[[], AttemptRecord],
    write: Callable[[str], object],
    *,
    first: int | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Hands on each line of a log on this host until its attempt is over; begins with the `first` last ones, or all."""
    log: GrowingLog | None = None
    while True:
        attempt = look()  # before the file: what an ended attempt printed is all there
        path = None if is_elsewhere(attempt) or attempt.log_path is None else Path(attempt.log_path)
        if log is None and path is not None and path.is_file():
            log = GrowingLog(path)
            begun = log.lines()
            for line in begun if first is None else begun[len(begun) - min(first, len(begun)) :]:
                write(line)
        if log is not None:
            for line in log.lines(whole=attempt.ending is not None):
                write(line)
        if attempt.ending is not None:
            return
        pause(_LOOK_S)


class GrowingLog:
    """A file that another process writes to, read on from the last position."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""

    def lines(self, *, whole: bool = False) -> list[str]:
        """Lines that were ended since the last call; with `whole` the last one too, ended or not."""
        text = self._rest + self._file.read()
        if self._is_rotated():
            text += self._file.read()  # what came in between
            self._file.close()
            self._file = self._path.open("rb")
            text += self._file.read()
        ended, end, rest = text.rpartition(b"\n")
        self._rest = b"" if whole else rest
        return (text if whole else ended + end).decode("utf-8", errors="replace").splitlines()

    def _is_rotated(self) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:  # it is just being replaced
            return False


def _text(attempt: AttemptRecord) -> str:
    if attempt.log_path is None or is_elsewhere(attempt):
        return ""
    path = Path(attempt.log_path)
    parts = []
    for part in (path.with_name(path.name + ".1"), path):
        with contextlib.suppress(OSError):
            parts.append(part.read_bytes().decode("utf-8", errors="replace"))
    return "".join(parts)
