"""How long the tokens of an epoch took, without what is no training: compiling, validation, saving."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod


class Stopwatch:
    """Started for an epoch, told of each step, stopped for the sums. The first step of a shape compiles it."""

    def __init__(self) -> None:
        self._compiled: set[tuple[int, ...]] = set()
        self._began = 0.0
        self._tokens = 0

    def start(self) -> None:
        """At the beginning of an epoch, or of what is left of it."""
        self._began = time.perf_counter()
        self._tokens = 0

    def lap(self, shape: Sequence[int], wait: Callable[[], object]) -> None:
        """After each step; `wait` returns once the device has done it, and is called where that matters."""
        if tuple(shape) in self._compiled:
            self._tokens += prod(shape)
        else:
            wait()
            self._compiled.add(tuple(shape))
            self._began = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile takes no time."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def stop(self) -> tuple[int, float]:
        """Tokens and seconds; no seconds without tokens. The device must have finished."""
        return self._tokens, time.perf_counter() - self._began if self._tokens else 0.0
