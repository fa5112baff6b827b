"""Executes the planner's Actions. Each is one conditional statement, or a statement and the messages that follow it.

What dies between the two is found by a later tick: a queued ticket without a message is sent again. An action that
fails is a fault of its study; the other actions are executed all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import TypeVar

from typing_extensions import assert_never

from highnoon.coordinator.cluster_metrics import Counters
from highnoon.coordinator.planner import Action, Close, Dispatch, Quarantine, Reap, Resend, Stop
from highnoon.coordinator.queue_client import QueueClient
from highnoon.coordinator.study_faults import StudyFaults
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.states import WorkerState
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.control import Control
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes

_log = logging.getLogger("highnoon.coordinator.executor")

T = TypeVar("T")

_Unsent = dict[str, list[list[RunTrial]]]
"""By resource, for each study."""

_NAMES: Mapping[type[Action], str] = {
    Reap: "reap",
    Stop: "stop",
    Close: "close_study",
    Quarantine: "quarantine",
    Resend: "resend",
    Dispatch: "dispatch",
}
"""As metrics call them."""


class ActionExecutor:
    """The acting half of one leader."""

    def __init__(self, *, database: Database, queues: QueueClient, faults: StudyFaults, counters: Counters) -> None:
        self._control = Control(database)
        self._attempts = Attempts(database)
        self._nodes = Nodes(database)
        self._queues = queues
        self._faults = faults
        self._counters = counters
        self.turns: dict[int, float] = {}
        """By study, for the planner: the turn of its last dispatch."""

    def execute(self, actions: Sequence[Action]) -> None:
        """All of them, in order. Raises ServiceUnavailable when the database goes away; Redis may be away."""
        unsent: _Unsent = {}
        urgent: _Unsent = {}
        try:
            for action in actions:
                name = _NAMES[type(action)]
                study_id, study = (None, None) if isinstance(action, Quarantine) else (action.study_id, action.name)
                self._faults.isolate(name, study_id, study, partial(self._execute, action, unsent, urgent))
        finally:
            for resource, by_study in unsent.items():
                self._queues.publish(in_turns(by_study), resource=resource)
            for resource, by_study in urgent.items():
                self._queues.publish(in_turns(by_study), resource=resource, first=True)

    def _execute(self, action: Action, unsent: _Unsent, urgent: _Unsent) -> None:
        match action:
            case Reap():
                self._reap(action)
            case Stop():
                if self._control.stop(action.study_id, action.reason, spec_version=action.spec_version):
                    event(_log, "stop", study=action.name, reason=action.reason)
            case Close():
                state, reason = action.state, action.reason
                if self._control.finish(action.study_id, before=action.before, state=state, reason=reason):
                    event(_log, "close_study", study=action.name, state=state, reason=reason)
                    self.turns.pop(action.study_id, None)
            case Quarantine():
                self._quarantine(action)
            case Resend():
                tries = self._control.requeue(action.ticket_ids)
                event(_log, "resend", level=logging.WARNING, study=action.name, messages=len(tries))
                _add(unsent, urgent, action, tries)
            case Dispatch():
                tries = self._control.dispatch(action.study_id, action.count, tried=action.tried)
                _add(unsent, urgent, action, tries)
                self.turns[action.study_id] = action.turn
            case _:
                assert_never(action)
        self._counters.actions.labels(_NAMES[type(action)]).inc()

    def _reap(self, action: Reap) -> None:
        ticket, attempt = action.ticket_id, action.attempt
        disposition = self._attempts.reap(ticket, attempt, message="its lease ran out", only_expired=True)
        if disposition is not None:
            self._queues.wake()  # the next tick sends its message
            fields = {"study": action.name, "ticket": ticket, "attempt": attempt, "disposition": disposition}
            event(_log, "reap", level=logging.WARNING, **fields)

    def _quarantine(self, action: Quarantine) -> None:
        if self._nodes.move(action.worker_id, (WorkerState.ACTIVE,), WorkerState.QUARANTINED, action.reason):
            event(_log, "quarantine", level=logging.WARNING, worker=action.worker_id[:8], reason=action.reason)


def in_turns(by_study: Iterable[Sequence[T]]) -> list[T]:
    """One of each study, then the next of each: a queue is first in, first out, and its order decides what runs."""
    return [item for item in chain(*zip_longest(*by_study)) if item is not None]


def _add(unsent: _Unsent, urgent: _Unsent, action: Dispatch | Resend, tries: Mapping[int, int]) -> None:
    """What has been tried before must not wait behind the whole buffer again: it is urgent."""
    for messages, is_urgent in ((unsent, False), (urgent, True)):
        found = [RunTrial(study=action.name, ticket=id_) for id_, tried in tries.items() if bool(tried) is is_urgent]
        if found:
            messages.setdefault(action.resource, []).append(found)
