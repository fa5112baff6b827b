"""What tests of several rings share: waiting for a fact instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(fact: Callable[[], T], timeout_s: float = 10.0, *, what: str = "") -> T:
    """Polls until `fact()` is true and returns it; an assertion error that says what it was last, after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    while not (seen := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {timeout_s:g} s: {what or getattr(fact, '__name__', fact)} (last: {seen!r})"
            )
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.2)
    return seen
