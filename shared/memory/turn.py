"""Whose turn it is to stop: trials on one machine see the same pressure, and one stop may be enough.

A file that all trials of one account share holds the time of the last stop. It is a courtesy between trials that see
nothing of one another; limits that must hold are kept by the supervisor and by the kernel.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SETTLE_S = 5.0
"""How long after a stop its memory may take to come back (checkpoint, unwinding, exit) before another trial goes."""


class StopTurn:
    """The turn kept in the file `path`, by default one for each account in /dev/shm."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path or _default_path()
        self._clock = clock

    def take(self) -> bool:
        """True when no other trial stopped within SETTLE_S, and then others wait. True also if no file can be kept."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return True
        try:
            # Held for microseconds. Monotonic time is one for the whole machine, so that processes compare theirs.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            now, last = self._clock(), _time_in(descriptor)
            if last is not None and 0 <= now - last < SETTLE_S:
                return False
            os.pwrite(descriptor, f"{now:020.6f}".encode(), 0)
            return True
        except OSError:
            return True
        finally:
            os.close(descriptor)


def _time_in(descriptor: int) -> float | None:
    try:
        return float(os.pread(descriptor, 64, 0))
    except ValueError:
        return None


def _default_path() -> Path:
    shared = Path("/dev/shm")
    folder = shared if shared.is_dir() else Path(tempfile.gettempdir())
    return folder / f"highnoon-memory-{os.getuid()}.turn"
