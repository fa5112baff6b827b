"""The thread of a supervisor that copies files to and from the store, and whether that store moves.

A store may be slow, away or frozen. One that moves no byte for too long is left alone for a while, with the thread
that waits for it: neither the trial's end nor the next trial waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Event
from typing import TypeVar

from highnoon.shared.domain.errors import FileStoreError
from highnoon.shared.objective.staged_files import SavingLimits
from highnoon.shared.runtime.file_store import FileStore, file_store
from highnoon.shared.runtime.settings import Settings
from highnoon.workers.io_thread import IoThread

T = TypeVar("T")

_STALLED_S = 30.0
_LEFT_ALONE_S = 60.0

_NO_STORE = "this worker has no place for artifacts, which HIGHNOON_ARTIFACTS_URL sets"


class GivenUp(FileStoreError):
    """Raised in the thread of a store that was left alone, once the store answers: nothing of this copy counts."""


class StoreThread:
    """The thread of a supervisor that copies files, and whether the store moves. Begins with the first copy."""

    def __init__(self, settings: Settings, wakeup_fd: int, *, stalled_s: float = _STALLED_S) -> None:
        """`wakeup_fd` becomes readable when a copy has ended; one that moves nothing for `stalled_s` has stalled."""
        self.stalled_s = stalled_s
        self._wakeup_fd = wakeup_fd
        self._place, self._options = settings.artifacts_place, settings.artifacts_options
        inside = self._place is not None and Path(self._place).is_relative_to(settings.home)
        # A folder of this home holds nothing that the node does not have: its checkpoints need not travel.
        every_s = None if self._place is None or inside else settings.checkpoint_s
        self.limits = SavingLimits(artifact_bytes=settings.artifact_limit_bytes, checkpoint_s=every_s)
        self._io: IoThread | None = None
        self._is_given_up = Event()
        """Of this thread: the next one has another."""
        self._store: FileStore | None = None
        self._moved_at = 0.0
        self._left_alone_until = 0.0

    @property
    def has_place(self) -> bool:
        """Whether files can be stored at all."""
        return self._place is not None

    @property
    def trouble(self) -> str:
        """Why nothing can be stored now; empty when it can be tried."""
        if self._place is None:
            return _NO_STORE
        return "the store did not answer a moment ago" if time.monotonic() < self._left_alone_until else ""

    def submit(self, step: Callable[[FileStore, Callable[[int], object]], T]) -> Future[T]:
        """Runs `step` with the store and a function that it calls with the bytes that it moves, which may raise
        GivenUp."""
        self._io = self._io or IoThread(wakeup_fd=self._wakeup_fd)
        self._moved_at = time.monotonic()
        moved = partial(self._note_progress, self._is_given_up)
        return self._io.submit(lambda: step(self._opened(), moved))

    def has_stalled(self) -> bool:
        """True when the running copy has moved nothing for too long."""
        return time.monotonic() - self._moved_at > self.stalled_s

    def leave_alone(self) -> None:
        """Gives the store up for a while. The thread ends by itself if the store should answer after all."""
        self._is_given_up.set()
        self._is_given_up = Event()
        if self._io is not None:
            self._io.stop(0.0)
        self._io, self._store = None, None
        self._left_alone_until = time.monotonic() + _LEFT_ALONE_S

    def close(self) -> None:
        """Ends the thread, or leaves it behind."""
        if self._io is not None:
            self._io.stop(0.0)

    def _opened(self) -> FileStore:
        if self._store is None:
            if self._place is None:
                raise FileStoreError(_NO_STORE)
            self._store = file_store(self._place, self._options)
        return self._store

    def _note_progress(self, is_given_up: Event, _: int) -> None:
        if is_given_up.is_set():
            raise GivenUp("it answered too late")
        self._moved_at = time.monotonic()
