"""The observer: gathers a Snapshot from ledger, Redis and Optuna. Decides nothing.

What is dear is looked at rarely: Optuna's running trials only every few seconds, or when a study seems finished
or something was reaped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from highnoon.coordinator.lost_messages import LastingDeficit
from highnoon.coordinator.optuna_side import OptunaSide
from highnoon.coordinator.planner import Orphan, QueueLoad, Snapshot
from highnoon.shared.domain.errors import ServiceUnavailable, UnknownStudy
from highnoon.shared.domain.messages import RESOURCES
from highnoon.shared.domain.states import Ending, TicketState, WorkerState
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.control import Control, TicketLoad
from highnoon.shared.store.database import Database
from highnoon.shared.store.node_failures import Streak, Streaks
from highnoon.shared.store.nodes import Nodes, Worker
from highnoon.shared.store.studies import Studies

_log = logging.getLogger("highnoon.coordinator.snapshot_reader")

_OPEN = (TicketState.WAITING, TicketState.QUEUED, TicketState.RUNNING, TicketState.SETTLED)
_PRESENCE_MISSES = 4
"""A worker that missed so many beats has no slots to count on."""

_LOST_AFTER_S = 5.0
"""A message may take so long from Redis to a claim."""


class Observer:
    """One leader's eyes."""

    def __init__(self, settings: Settings, *, database: Database, broker: Broker, optuna: OptunaSide) -> None:
        self._settings = settings
        self._control = Control(database)
        self._nodes = Nodes(database)
        self._studies = Studies(database)
        self._broker = broker
        self._optuna = optuna
        self._streaks = Streaks(database)
        self._orphans_at = 0.0
        self._streaks_at = 0.0
        self._redis_is_away = False
        self._deleted: set[int] = set()
        self._deficits = {resource: LastingDeficit(_LOST_AFTER_S) for resource in RESOURCES}

    def look(self, *, steady_s: float) -> Snapshot:
        """The state of everything now. Raises ServiceUnavailable when the database is away."""
        loads = tuple(self._control.loads())
        active = self._active(loads)
        orphans = self._orphans(loads)
        return Snapshot(
            steady_s=steady_s,
            loads=loads,
            queues=self._queues(loads, active),
            expired=tuple(self._control.expired()),
            settled=tuple(self._control.settled()),
            queued=tuple(self._control.queued()),
            orphans=orphans,
            deleted=frozenset(self._deleted),
            ages_s={load.study.id: self._control.age_s(load.study.id) for load in loads if _asks(load, "timeout")},
            best_values={
                load.study.id: self._studies.best_value(
                    load.study.id, maximize=load.study.spec["direction"] == "maximize"
                )
                for load in loads
                if _asks(load, "target_value")
            },
            recent_endings={
                load.study.id: self._recent_endings(load) for load in loads if _asks(load, "max_failures_in_a_row")
            },
            streaks=self._streaks_of(active, loads),
        )

    def look_for_orphans_soon(self) -> None:
        """Something was reaped: its Optuna trial is an orphan now."""
        self._orphans_at = 0.0

    def remember_deleted(self, study_id: int) -> None:
        """Optuna does not know the study any more."""
        self._deleted.add(study_id)

    def _active(self, loads: Sequence[TicketLoad]) -> list[Worker]:
        if not loads:
            return []
        present = self._nodes.workers(silent_for_s=self._settings.presence_s * _PRESENCE_MISSES)
        return [worker for worker in present if worker.state is WorkerState.ACTIVE]

    def _streaks_of(self, active: Sequence[Worker], loads: Sequence[TicketLoad]) -> tuple[Streak, ...]:
        """Only where another node could go on, and as rarely as orphans."""
        if len(active) < 2 or not self._settings.quarantine_after or time.monotonic() < self._streaks_at:
            return ()
        self._streaks_at = time.monotonic() + self._settings.reap_s
        return tuple(self._streaks.of([worker.id for worker in active], [load.study.id for load in loads]))

    def _queues(self, loads: Sequence[TicketLoad], active: Sequence[Worker]) -> dict[str, QueueLoad]:
        return {
            resource: self._queue(resource, active, loads)
            for resource in RESOURCES
            if any(load.study.queue == resource for load in loads)
        }

    def _queue(self, resource: str, active: Sequence[Worker], loads: Sequence[TicketLoad]) -> QueueLoad:
        messages = self._depth(resource)
        queued = sum(load.by_state.get(TicketState.QUEUED, 0) for load in loads if load.study.queue == resource)
        missing = 0 if messages is None else queued - messages
        return QueueLoad(
            slots=sum(worker.slots for worker in active if resource in worker.queues),
            messages=messages,
            lost=self._deficits[resource].add(missing, time.monotonic()),
        )

    def _depth(self, resource: str) -> int | None:
        try:
            messages = self._broker.depth(resource)
        except ServiceUnavailable as error:
            if not self._redis_is_away:
                event(_log, "outage", level=logging.WARNING, during="depth", error=error)
            self._redis_is_away = True
            return None
        self._redis_is_away = False
        return messages

    def _orphans(self, loads: Sequence[TicketLoad]) -> tuple[Orphan, ...]:
        ending = [load for load in loads if not any(load.by_state.get(state) for state in _OPEN)]
        if time.monotonic() >= self._orphans_at:
            self._orphans_at = time.monotonic() + self._settings.reap_s
            ending = list(loads)
        return tuple(orphan for load in ending for orphan in self._orphans_of(load))

    def _orphans_of(self, load: TicketLoad) -> list[Orphan]:
        """Running for an attempt that is over, or beside the trial that its attempt has bound."""
        try:
            running = self._optuna.study(load.study).owned_running()
        except UnknownStudy:
            self.remember_deleted(load.study.id)
            return []
        bound = self._control.bound_trials([(trial.owner.ticket, trial.owner.attempt) for trial in running])
        return [
            Orphan(study_id=load.study.id, trial=trial)
            for trial in running
            if bound.get((trial.owner.ticket, trial.owner.attempt), -1) not in (None, trial.number)
        ]

    def _recent_endings(self, load: TicketLoad) -> tuple[Ending, ...]:
        return tuple(self._control.recent_endings(load.study.id, load.study.spec["max_failures_in_a_row"]))


def _asks(load: TicketLoad, limit: str) -> bool:
    return load.study.spec.get(limit) is not None
