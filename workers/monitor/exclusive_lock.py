"""The room of a node: trials share it, and one that a neighbour pushed out has it to itself.

Two locks of the kernel on one file, held by supervisors. They belong to the process and end with it, however it ends,
and no trial inherits them:

    room    shared by each running trial, exclusive for one that must be alone
    gate    passed by who enters, held by who waits to be alone: so that room comes free, nobody new enters

Whoever waits holds nothing that a running trial needs, so no two wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOM, _GATE = 0, 1
_LOOK_S = 0.1


class Room:
    """One supervisor's way in. Raises OSError for a disk that refuses."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Kept open for the process's life: closing any descriptor of a file gives up all its locks.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def entered(self, *, alone: bool, may_wait: Callable[[], bool]) -> Iterator[bool]:
        """Inside, False when `may_wait` (asked ten times a second) said no before there was room."""
        try:
            yield self._enter(alone, may_wait)
        finally:
            self._let_go(_GATE)
            self._let_go(_ROOM)

    def _enter(self, alone: bool, may_wait: Callable[[], bool]) -> bool:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        while True:
            if self._take(_GATE, kind):
                if self._take(_ROOM, kind):
                    self._let_go(_GATE)
                    return True
                if not alone:
                    self._let_go(_GATE)
            if not may_wait():
                return False
            time.sleep(_LOOK_S)

    def _take(self, place: int, kind: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, kind | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _let_go(self, place: int) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)
