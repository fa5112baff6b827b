"""What `start` was asked to do, and when it is to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """What `start` was asked to do."""

    settings: Settings
    spec: StudySpec | None
    slots: int
    console: Console


class StopRequest:
    """SIGINT and SIGTERM as a wish: the first ends in order, later ones hurry."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._hurry: Callable[[], None] | None = None
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._hear)

    def on_hurry(self, hurry: Callable[[], None]) -> None:
        """What a second signal does."""
        self._hurry = hurry

    def _hear(self, _signum: int, _frame: object) -> None:
        if self.wanted.is_set() and self._hurry is not None:
            self._hurry()
        self.wanted.set()
