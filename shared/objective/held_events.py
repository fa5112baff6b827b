"""Reports that follow each other within milliseconds go to the supervisor together.

Each line that is sent wakes the supervisor, and to wake a process on another core takes a short step more time than all
else of a report: 150 us of 160 on a virtual machine. So the first report after a pause is sent at once, and those that
come soon after it are held until the pause is over. A process that is killed loses what it holds.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from highnoon.shared.objective.trial_pipe import Event

HOLD_S = 0.05
"""Long against a report that is sent, short against everything that a supervisor decides by reports."""

_IDLE_S = 2.0
"""The thread that sends what is held ends after so long without any."""


class Sender(Protocol):
    """What sends events, as `trial_pipe.Pipe` does."""

    def send(self, *events: Event) -> None:
        """All of them, in order."""


class HeldEvents:
    """The events of one trial process in the order in which they are sent. Call `send` and `hold` with the `lock`."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.begin()
        _all.add(self)

    def begin(self) -> None:
        """As if nothing were held: in a forked child, whose parent sends that, and has the thread."""
        self.lock = threading.Condition(threading.Lock())
        self._held: list[Event] = []
        self._sent_at = -HOLD_S
        self._thread: threading.Thread | None = None
        self._thread_is_idle = False

    def send(self, *events: Event) -> None:
        """Sends what is held, and these."""
        events, self._held = (*self._held, *events), []
        if events:
            self._sender.send(*events)
            self._sent_at = time.monotonic()

    def hold(self, event: Event) -> None:
        """Sends the event, at the latest in HOLD_S."""
        if time.monotonic() - self._sent_at >= HOLD_S:
            self.send(event)
            return
        self._held.append(event)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="reports", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no more threads are allowed, or the interpreter ends
                self._thread = None
                self.send()
        elif self._thread_is_idle:
            self.lock.notify()

    def _serve(self) -> None:
        with self.lock:
            while self._held or self._wait_for_more():
                # While reports come, by the clock alone: to be notified of each would cost what this saves.
                self.lock.wait(HOLD_S)
                self.send()
            self._thread = None

    def _wait_for_more(self) -> bool:
        self._thread_is_idle = True
        self.lock.wait(_IDLE_S)
        self._thread_is_idle = False
        return bool(self._held)


_all: WeakSet[HeldEvents] = WeakSet()


def _begin_in_child() -> None:
    for one in _all:
        one.begin()


os.register_at_fork(after_in_child=_begin_in_child)
