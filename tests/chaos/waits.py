"""Reports what a run waits for, when that lasts too long: a run that hangs must show where."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT_S = 30.0


class Waits:
    """The waits of one thread. A second thread reports each that exceeds the limit, with the place where it waits."""

    def __init__(self, *, limit_s: float = LIMIT_S, report: Callable[[str], None] | None = None) -> None:
        self._limit_s = limit_s
        self._report = report or (lambda text: print(text, file=sys.stderr, flush=True))
        self._current: tuple[str, float] | None = None
        self._waiter = threading.get_ident()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waits", daemon=True)
        self._thread.start()

    @contextmanager
    def named(self, what: str) -> Iterator[None]:
        """The body of this statement may last as long as the limit before it is reported."""
        self._current = (what, time.monotonic())
        try:
            yield
        finally:
            self._current = None

    def close(self) -> None:
        """Ends the second thread."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        reported: tuple[str, float] | None = None
        while not self._is_over.wait(min(1.0, self._limit_s / 4)):
            current = self._current
            if current is not None and current is not reported and time.monotonic() - current[1] > self._limit_s:
                reported = current
                frame = sys._current_frames().get(self._waiter)
                stack = "".join(traceback.format_stack(frame)[-8:]) if frame is not None else ""
                self._report(f"chaos: has waited {self._limit_s:g} s for {current[0]}\n{stack}")
