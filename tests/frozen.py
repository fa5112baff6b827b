"""Services that are stopped (SIGSTOP): they still acknowledge TCP, and answer nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import psutil

from highnoon.coordinator.local.stack import Stack


@contextmanager
def frozen(stack: Stack, service: Literal["postgres", "redis"]) -> Iterator[None]:
    """Stops all processes of a service, also the processes of its open connections."""
    identity = stack.home.load().services[service].process
    assert identity is not None
    root = psutil.Process(identity.pid)
    # The parent first: it starts no further process then.
    root.send_signal(signal.SIGSTOP)
    processes = [root, *root.children(recursive=True)]
    for process in processes[1:]:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


class Stopwatch:
    """How long a block took, without the time that this thread waited for a core of a busy machine."""

    seconds: float

    def __enter__(self) -> Stopwatch:
        self._began = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self._now() - self._began

    @staticmethod
    def _now() -> float:
        waited_ns = int(Path("/proc/thread-self/schedstat").read_text().split()[1])
        return time.monotonic() - waited_ns / 1e9
