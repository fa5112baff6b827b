"""The I/O thread of a process: the one thread that runs every statement, in the order in which they were submitted.

Supervisor and agent each have one. Their main thread, the monitor, submits steps and polls the futures; it never
waits for a database. Make it after the last fork of a process: a forked child has no such thread.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.store.outages import OutageLog

T = TypeVar("T")

_log = logging.getLogger("highnoon.workers.io_thread")

_FIRST_PAUSE_S = 0.25


class IoThread:
    """Runs steps one after the other. All methods are for the main thread and never wait, except `stop`."""

    def __init__(self, *, longest_pause_s: float = 5.0, wakeup_fd: int | None = None) -> None:
        """`longest_pause_s` is the longest time between two tries of a persistent step; `wakeup_fd` another's, so that
        one wait is for both."""
        self._longest_pause_s = longest_pause_s
        self.wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if wakeup_fd is None else wakeup_fd
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_stopping = threading.Event()
        self._try_began_at: float | None = None
        self._outages = OutageLog(_log)
        # A daemon: a process that must end does not wait for a server that does not answer.
        self._thread = threading.Thread(target=self._serve, name="io", daemon=True)
        self._thread.start()

    def submit(self, step: Callable[[], T], *, persistent: bool = False) -> Future[T]:
        """Queues a step; its result or exception arrives in the future, and `wakeup_fd` becomes readable.

        A persistent step is repeated with backoff and jitter while it raises ServiceUnavailable. A cancelled future
        is not tried again; what a try that was under way has done stays done.
        """
        future: Future[T] = Future()
        self._jobs.put(lambda: self._carry_out(step, future, persistent))
        return future

    def clear_wakeup(self) -> None:
        """Makes `wakeup_fd` unreadable until the next result. Call it before looking at the futures."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.wakeup_fd)

    def stuck_s(self) -> float:
        """For how long the step that runs now has not returned; every statement has a deadline of its own."""
        began_at = self._try_began_at
        return 0.0 if began_at is None else time.monotonic() - began_at

    def stop(self, timeout_s: float) -> bool:
        """Carries out what is queued, each step once, and ends. False when the thread still runs after `timeout_s`."""
        self._is_stopping.set()
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _carry_out(self, step: Callable[[], T], future: Future[T], persistent: bool) -> None:
        tries = 0
        while not future.cancelled():
            tries += 1
            result: T | BaseException
            self._try_began_at = time.monotonic()
            try:
                result = step()
            except BaseException as error:  # the thread goes on; the reader of the future gets the error
                result = error
            self._try_began_at = None
            if isinstance(result, ServiceUnavailable) and persistent and not self._is_stopping.is_set():
                self._outages.note("waiting_for_database", result, tries=tries)
                self._is_stopping.wait(self._pause_s(tries))
                continue
            if not isinstance(result, ServiceUnavailable):
                self._outages.end()
            self._deliver(future, result)
            return

    def _deliver(self, future: Future[T], result: T | BaseException) -> None:
        # A future stays pending while its step runs, so that it can be cancelled between two tries.
        if not future.set_running_or_notify_cancel():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
        os.eventfd_write(self.wakeup_fd, 1)

    def _pause_s(self, tries: int) -> float:
        """Random below a bound that doubles with each try: after an outage a cluster's nodes must not come together."""
        longest = min(self._longest_pause_s, _FIRST_PAUSE_S * 2.0 ** min(tries, 10))
        return random.uniform(0.0, longest)  # noqa: S311 - no secret
