"""Who may run services in a home: one process at a time, and the lock is gone the moment that process is.

The file lock decides; the holder's record in state.json only tells others whom to name and where to connect.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace

from highnoon.shared.domain.errors import InvariantBroken
from highnoon.shared.runtime.data_dir import Holder, Home
from highnoon.shared.runtime.processes import identify


class HomeLock:
    """The right to run the services of one home. Not to be held across a fork: the child would hold it too."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._fd: int | None = None

    @property
    def is_held(self) -> bool:
        return self._fd is not None

    def try_acquire(self, purpose: str) -> bool:
        """Takes the lock if nobody has it, and says what for. Raises EmbeddedServiceError when the home is unusable."""
        self._home.prepare()
        fd = os.open(self._home.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        self._record(purpose, ready=False)
        return True

    def announce(self, purpose: str) -> None:
        """Tells others that the services are ready: from now on `shared.runtime.embedded.attach` leads to them."""
        self._record(purpose, ready=True)

    def release(self) -> None:
        """Gives the home back. Harmless when it is not held."""
        if self._fd is not None:
            self._home.save(replace(self._home.load(), holder=None))
            os.close(self._fd)
            self._fd = None

    def _record(self, purpose: str, *, ready: bool) -> None:
        me = identify(os.getpid())
        if me is None or self._fd is None:
            raise InvariantBroken("only the living holder of a home's lock may record itself")
        self._home.save(replace(self._home.load(), holder=Holder(process=me, purpose=purpose, ready=ready)))
