"""A drained node leaves as soon as its last trial is over; Celery alone takes some two seconds to end idle children.

Called by Celery between the end of its consumer and the end of its pool: no message can come any more, and a
supervisor that is not at work yet sees the order to drain before it claims.
"""

from __future__ import annotations

import os
import time
from typing import Any

import psutil
from celery import Celery, bootsteps

from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotNotes

_LOOK_S = 0.02


def leave_when_idle(app: Celery, node: Node) -> None:
    """Adds the step to the worker of this app. It ends this process, and by their death signal its children."""

    class LeaveWhenIdle(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Pool",)

        def stop(self, worker: Any) -> None:
            if not node.drain.is_given():
                return
            notes = SlotNotes(node.folder / "slots")
            while not notes.none_at_work():
                time.sleep(_LOOK_S)
            # One that has just begun has no death signal yet, and would complain of its parent's end.
            for supervisor in psutil.Process().children():
                supervisor.kill()
            os._exit(0)

    app.steps["worker"].add(LeaveWhenIdle)
