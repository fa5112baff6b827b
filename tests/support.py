"""What tests of several rings share: waiting for a fact instead of sleeping."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


WITH_DEFAULT_LEASE = os.environ.get("TEST_LEASE") == "default"
"""`make test-default-lease`: clusters have the periods of a user instead of short ones, and tests more patience."""

_LEAST_PATIENCE, _MOST_PATIENCE = 3.0, 6.0


def eventually(fact: Callable[[], T], timeout_s: float = 10.0, *, what: str = "") -> T:
    """Polls until `fact()` is true and returns it; an assertion error with its last value, after `timeout_s`.

    `timeout_s` is for a machine that is fast and idle: it waits three times as long at least, and longer on one with
    too much to do. What must happen within a time is measured, not polled for.
    """
    began = time.monotonic()
    pause_s = 0.005
    while not (seen := fact()):
        if time.monotonic() - began > timeout_s * _patience():
            raise AssertionError(
                f"not within {timeout_s:g} s: {what or getattr(fact, '__name__', fact)} (last: {seen!r})"
            )
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.2)
    return seen


@contextmanager
def steady_network() -> Iterator[None]:
    """Keeps this machine's network interfaces to one process of tests: Chromium drops its requests when they change."""
    with (Path(tempfile.gettempdir()) / "highnoon-tests-network.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _patience() -> float:
    """The least up to two processes that want to run for each core, then more in proportion."""
    wanted_per_core = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(max(wanted_per_core / 2, 1.0) * _LEAST_PATIENCE, _MOST_PATIENCE) * (2.0 if WITH_DEFAULT_LEASE else 1.0)
