"""Changes to Celery's prefork pool: ended children are replaced at once, a drained node exits at once, and the events
for Flower are sent together.

All run in the Celery parent of a node and use internals of Celery 5; tests/integration/test_worker_node.py fails when
they no longer work.
"""

from __future__ import annotations

import os
import time
from typing import Any

import psutil
from celery import Celery, bootsteps
from celery.concurrency import asynpool
from celery.worker.consumer import Consumer

from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotStates

_MAINTAIN_AGAIN_S = 0.01
_LOOK_S = 0.02
_EVENTS_EVERY_S = 0.5


def replace_ended_children_at_once() -> None:
    """Patches the pool class of this process. Call once in the Celery parent, before the worker starts.

    billiard's pool finds a child's descriptors closed before the child is a zombie, misses it, and waits for its
    five-second maintenance timer (celery issue 9588, open in 5.7). A second look a few milliseconds later finds it.
    """
    original = asynpool.AsynPool._event_process_exit

    def _event_process_exit(self: Any, hub: Any, proc: Any) -> None:
        original(self, hub, proc)
        if proc in self._pool:
            hub.call_later(_MAINTAIN_AGAIN_S, _maintain_until_gone, self, hub, proc)

    asynpool.AsynPool._event_process_exit = _event_process_exit


def _maintain_until_gone(pool: Any, hub: Any, proc: Any) -> None:
    pool.maintain_pool()
    if proc in pool._pool:
        hub.call_later(_MAINTAIN_AGAIN_S, _maintain_until_gone, pool, hub, proc)


def send_events_together() -> None:
    """Patches the consumer class of this process. Call once in the Celery parent, before the worker starts.

    Celery publishes each event of a task at once, three for each trial; Flower reads many in one message as well.
    """

    def on_send_event_buffered(self: Any) -> None:
        if self.hub is not None and not getattr(self, "flush_is_due", False):
            self.flush_is_due = True
            self.hub.call_later(_EVENTS_EVERY_S, _flush_events, self)

    Consumer.on_send_event_buffered = on_send_event_buffered


def _flush_events(consumer: Any) -> None:
    consumer.flush_is_due = False
    consumer._flush_events()


def exit_when_drained(app: Celery, node: Node) -> None:
    """Adds a step to the worker of this app: a drained node ends this process as soon as its last trial is over.

    Celery alone takes some two seconds to end idle children. It calls the step between the end of its consumer and the
    end of its pool: no message can come any more, and an idle supervisor reads the drain before it starts.
    """

    class ExitWhenDrained(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Pool",)

        def stop(self, worker: Any) -> None:
            if not node.drain.is_given():
                return
            slots = SlotStates(node.folder)
            while not slots.none_at_work():
                time.sleep(_LOOK_S)
            # A child that has just begun has no death signal yet, and would log the end of its parent as an error.
            for supervisor in psutil.Process().children():
                supervisor.kill()
            os._exit(0)

    app.steps["worker"].add(ExitWhenDrained)
