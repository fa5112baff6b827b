"""Redis as the coordinator uses it, on threads of its own: no tick waits for a Redis that is away or frozen.

Messages are sent in order, one request after another. A frozen Redis delays the threads, and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.messages import RESOURCES, RunTrial
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event

_log = logging.getLogger("highnoon.coordinator.queue_client")

_ANSWER_S = 0.25
"""A tick waits so long for the depths that it asked for, and not at all while an older question is open."""

_AWAY_AFTER_S = 2.0
"""A Redis that has not answered for so long counts as away."""

_LISTEN_S = 1.0


class QueueClient:
    """Depths, publishing and notifications. No call raises ServiceUnavailable, and none blocks for long."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._steps: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._sender: threading.Thread | None = None
        self._listener: threading.Thread | None = None
        self._closing = threading.Event()
        self._notified = threading.Event()
        self._answered = threading.Condition()
        self._asked_at: float | None = None
        self._depths: dict[str, int] | None = None
        self._outage_logged = False

    def depths(self) -> Mapping[str, int] | None:
        """Messages by resource, as read now or at the call before; None while Redis is away."""
        with self._answered:
            if self._asked_at is None:
                self._asked_at = time.monotonic()
                self._submit(self._read_depths)
                self._answered.wait_for(lambda: self._asked_at is None, timeout=_ANSWER_S)
            if self._asked_at is not None and time.monotonic() - self._asked_at > _AWAY_AFTER_S:
                return None
            return self._depths

    def publish(self, messages: Sequence[RunTrial], *, resource: str, first: bool = False) -> None:
        """Sends messages soon, with `first` before those that wait.

        What is lost in an outage is found by a later tick: queued tickets without a message.
        """
        self._submit(partial(self._broker.publish, messages, resource=resource, first=first))

    def wait(self, timeout_s: float) -> None:
        """Returns at a notification, at `wake`, or after the timeout."""
        if self._listener is None:
            self._listener = _start(self._listen, "notifications")
        self._notified.wait(timeout_s)
        self._notified.clear()

    def wake(self) -> None:
        """Ends the wait that goes on, or the next one."""
        self._notified.set()

    def close(self) -> None:
        """Ends the threads; one that hangs in a frozen Redis is left behind, and ends with the process."""
        self._closing.set()
        if self._listener is not None:
            self._submit(self._broker.notify)
        self._steps.put(None)
        for thread in (self._sender, self._listener):
            if thread is not None:
                thread.join(timeout=_LISTEN_S + 0.5)

    def _submit(self, step: Callable[[], None]) -> None:
        if self._sender is None:
            self._sender = _start(self._send, "messages")
        self._steps.put(step)

    def _send(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                step()
                self._outage_logged = False
            except ServiceUnavailable as error:
                if not self._outage_logged:
                    event(_log, "outage", level=logging.WARNING, during="messages", error=error)
                self._outage_logged = True
            except Exception:
                _log.exception("action=messages_failed")

    def _read_depths(self) -> None:
        depths = None
        try:
            depths = {resource: self._broker.depth(resource) for resource in RESOURCES}
        finally:
            with self._answered:
                self._depths, self._asked_at = depths, None
                self._answered.notify_all()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                if self._broker.wait_for_notification(_LISTEN_S):
                    self._notified.set()
            except Exception:
                _log.exception("action=notifications_failed")
                self._closing.wait(_LISTEN_S)


def _start(target: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
