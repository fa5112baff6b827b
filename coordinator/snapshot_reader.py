"""Reads a Snapshot from ledger and Redis. Decides nothing.

Each study's part is checked for itself: a study whose data is broken is marked as faulty, and the others go on.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from highnoon.coordinator.planner import LOST_AFTER_S, QueueLoad, Snapshot
from highnoon.coordinator.queue_client import QueueClient
from highnoon.coordinator.shares import TIMED_TRIALS, messages_per_slot, ready_at_most
from highnoon.coordinator.study_faults import StudyFaults
from highnoon.shared.domain.errors import StudyConflict
from highnoon.shared.domain.goals import directions_of
from highnoon.shared.domain.limits import FIRST_FAILURES, OWN_FAILURES, failure_limit
from highnoon.shared.domain.messages import RESOURCES
from highnoon.shared.domain.states import Ending, StudyState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.database import Database
from highnoon.shared.store.node_queries import NodeQueries, Streak
from highnoon.shared.store.nodes import Capacity, Nodes, silent_too_long_s
from highnoon.shared.store.snapshot_queries import SnapshotQueries
from highnoon.shared.store.snapshot_rows import ReadyTickets, StudyLoad, TrialTimes

_TIMES_FOR_S = 1.0
"""For so long a reading of how long trials take is good enough."""

_NO_TIMES = TrialTimes(trial_s=math.inf, ended=0)
"""Of a study of which no trial has begun."""

_FIRST = 16
"""So many of a study's ready tickets are read where there is no room: what was tried before has the lowest numbers."""


class SnapshotReader:
    """The reading half of one leader."""

    def __init__(self, settings: Settings, *, database: Database, queues: QueueClient, faults: StudyFaults) -> None:
        self._settings = settings
        self._snapshot = SnapshotQueries(database)
        self._nodes = Nodes(database)
        self._node_queries = NodeQueries(database)
        self._queue_client = queues
        self._faults = faults
        self._silent_s = silent_too_long_s(settings)
        self._streaks_at = 0.0
        self._times_at = 0.0
        self._times: dict[int, TrialTimes] = {}
        self._lost = {resource: LostMessages(LOST_AFTER_S) for resource in RESOURCES}
        self._checked: dict[int, tuple[Mapping[str, Any], StudyConflict | None]] = {}

    def read(self, *, steady_s: float, turns: Mapping[int, float] | None = None) -> Snapshot:
        """The state of everything now. Raises ServiceUnavailable when the database is away."""
        capacity = self._nodes.capacity(silent_for_s=self._silent_s)
        found = self._snapshot.loads()
        live = {load.study.id for load in found}
        self._checked = {study_id: checked for study_id, checked in self._checked.items() if study_id in live}
        turns = turns or {}
        loads = self._with_ready(self._with_limits([self._sound(load) for load in found]), capacity, turns)
        leases = self._snapshot.expiring(within_s=self._settings.tick_s)
        queued = self._snapshot.queued() if any(load.queued for load in loads) else []
        may_be_passed_over = any(ticket.tried and ticket.age_s >= LOST_AFTER_S for ticket in queued)
        return Snapshot(
            steady_s=steady_s,
            loads=tuple(loads),
            queues=self._queues(loads, capacity),
            expired=tuple(lease for lease in leases if lease.left_s < 0),
            next_expiry_s=min((lease.left_s for lease in leases if lease.left_s >= 0), default=math.inf),
            queued=tuple(queued),
            started=self._snapshot.newest_started() if may_be_passed_over else {},
            turns=dict(turns),
            streaks=self._streaks_of(capacity, loads),
        )

    def _sound(self, load: StudyLoad) -> StudyLoad:
        """The load as it is, or marked as faulty."""
        study = load.study
        sound = self._faults.isolate("specification", study.id, study.name, lambda: self._with_checked_spec(load))
        if sound is not None and self._faults.is_of_plugin(load):
            return replace(load, fault="plug-in")
        return sound or replace(load, fault="specification")

    def _with_checked_spec(self, load: StudyLoad) -> StudyLoad:
        """Raises StudyConflict for a specification that cannot work. Ignores keys of a newer version."""
        study = load.study
        known = self._checked.get(study.id)
        if known is None or known[0] != study.spec:
            known = self._checked[study.id] = study.spec, _mistake_in(study.spec)
        if known[1] is not None:
            raise known[1]
        wanted = ",".join(directions_of(study.spec))
        if load.directions not in (None, wanted.upper()):
            raise StudyConflict(f"direction is {wanted}, and {str(load.directions).lower()} in Optuna")
        return load

    def _with_limits(self, loads: Sequence[StudyLoad]) -> list[StudyLoad]:
        """Adds what the limits of the specifications depend on."""
        limits = {load.study.id: failure_limit(load.study.spec) for load in loads if load.fault is None}
        counted = {study_id: limit for study_id, limit in limits.items() if limit}
        recent = self._snapshot.recent_endings(counted) if counted else {}
        succeeded = self._snapshot.succeeded([load.study.id for load in loads if _begins_badly(load, recent)])
        aimed = [load for load in loads if _has(load, "target_value")]
        best: dict[int, float | None] = {}
        if aimed:
            best = self._snapshot.best_values(
                {load.study.id: float(load.study.spec["target_value"]) for load in aimed if load.maximizes},
                {load.study.id: float(load.study.spec["target_value"]) for load in aimed if not load.maximizes},
            )
        patient = {load.study.id: load for load in loads if _has(load, "early_stop")}
        since_best: dict[int, int] = {}
        if patient:
            most = max(load.study.spec["early_stop"]["patience"] for load in patient.values())
            maximized = [study_id for study_id, load in patient.items() if load.maximizes]
            since_best = self._snapshot.since_best(maximized, [*(patient.keys() - set(maximized))], at_most=most)
        return [
            self._with_endings(
                load,
                recent.get(load.study.id, []),
                best_value=best.get(load.study.id),
                has_success=load.study.id in succeeded,
                since_best=since_best.get(load.study.id, 0),
            )
            for load in loads
        ]

    def _with_endings(self, load: StudyLoad, recent: Sequence[str], **found: Any) -> StudyLoad:
        study = load.study
        endings = self._faults.isolate("endings", study.id, study.name, lambda: tuple(map(Ending, recent)))
        if endings is None:
            return replace(load, fault="endings", **found)
        return replace(load, recent_endings=endings, **found)

    def _with_ready(
        self, loads: Sequence[StudyLoad], capacity: Capacity, turns: Mapping[int, float]
    ) -> list[StudyLoad]:
        """Counts ready tickets, only as far as their messages may be sent now: thousands may wait."""
        waiting = [
            load for load in loads if load.waiting and load.fault is None and load.study.state is StudyState.RUNNING
        ]
        times = self._trial_times([load.study.id for load in waiting], begun=turns.keys())
        ready: dict[int, ReadyTickets] = {}
        for resource in RESOURCES:
            wanting = [load for load in waiting if load.study.queue == resource]
            if wanting:
                ready.update(self._ready(resource, wanting, loads, capacity, times))
        return [
            replace(load, **found._asdict(), **times.get(load.study.id, _NO_TIMES)._asdict())
            if (found := ready.get(load.study.id)) and found.ready
            else load
            for load in loads
        ]

    def _ready(
        self,
        resource: str,
        wanting: Sequence[StudyLoad],
        loads: Sequence[StudyLoad],
        capacity: Capacity,
        times: Mapping[int, TrialTimes],
    ) -> dict[int, ReadyTickets]:
        """The ready tickets of a resource's studies: what there is room for, and the first ones in any case, since what
        has been tried before needs no room."""
        slots = capacity.slots.get(resource, 0)
        open_tickets = sum(load.queued + load.running for load in loads if load.study.queue == resource)
        most = self._settings.dispatch_buffer
        per_slot = max(messages_per_slot(*times.get(load.study.id, _NO_TIMES), most) for load in wanting)
        room = ready_at_most(slots * (1 + per_slot) - open_tickets, [load.priority for load in wanting])
        at_most = max(room, min(slots, _FIRST))
        return self._snapshot.ready([load.study.id for load in wanting], at_most=at_most) if at_most > 0 else {}

    def _trial_times(self, study_ids: Collection[int], begun: Collection[int]) -> Mapping[int, TrialTimes]:
        """How long trials of these studies take; none for a study without any.

        Read again once a second; at every tick for studies that have begun and of which few trials have ended, since
        their slots may run out of messages.
        """
        now = time.monotonic()
        if now >= self._times_at:
            self._times_at = now + _TIMES_FOR_S
            self._times = self._read_times(study_ids)
        elif few := [one for one in study_ids if one in begun and self._ended(one) < TIMED_TRIALS]:
            self._times = {**self._times, **self._read_times(few)}
        return self._times

    def _ended(self, study_id: int) -> int:
        return self._times.get(study_id, _NO_TIMES).ended

    def _read_times(self, study_ids: Collection[int]) -> dict[int, TrialTimes]:
        return self._snapshot.trial_times(study_ids, count_at_most=TIMED_TRIALS) if study_ids else {}

    def _queues(self, loads: Sequence[StudyLoad], capacity: Capacity) -> dict[str, QueueLoad]:
        """Asks Redis after the ledger: a ticket counts as queued before its message can."""
        wanted = [resource for resource in RESOURCES if any(load.study.queue == resource for load in loads)]
        depths = self._queue_client.depths() if wanted else None
        queues = {}
        for resource in wanted:
            messages = None if depths is None else depths[resource]
            queued = sum(load.queued for load in loads if load.study.queue == resource)
            missing = 0 if messages is None else queued - messages
            queues[resource] = QueueLoad(
                slots=capacity.slots.get(resource, 0),
                shared=capacity.shared.get(resource, {}),
                messages=messages,
                lost=self._lost[resource].add(missing, time.monotonic()),
            )
        return queues

    def _streaks_of(self, capacity: Capacity, loads: Sequence[StudyLoad]) -> tuple[Streak, ...]:
        """Only where another node could go on, and now and then."""
        if (
            capacity.workers < 2
            or not loads
            or not self._settings.quarantine_after
            or time.monotonic() < self._streaks_at
        ):
            return ()
        self._streaks_at = time.monotonic() + self._settings.presence_s
        active = self._nodes.active_ids(silent_for_s=self._silent_s)
        return tuple(self._node_queries.failure_streaks(active, [load.study.id for load in loads]))


def _mistake_in(spec: object) -> StudyConflict | None:
    try:
        StudySpec.model_validate(spec)
    except ValidationError as error:
        wrong = [mistake for mistake in error.errors() if mistake["type"] != "extra_forbidden"]
        if wrong:
            where = ".".join(map(str, wrong[0]["loc"])) or "all of it"
            return StudyConflict(f"{where}: {wrong[0]['msg']} (got {wrong[0]['input']!r:.100})")
    except Exception as error:
        return StudyConflict(f"cannot be read: {error!r:.200}")
    return None


def _has(load: StudyLoad, limit: str) -> bool:
    return load.fault is None and load.study.spec.get(limit) is not None


def _begins_badly(load: StudyLoad, recent: Mapping[int, Sequence[str]]) -> bool:
    """Whether it matters that the study had a success: its last trials have all failed."""
    newest = recent.get(load.study.id, [])[:FIRST_FAILURES]
    return len(newest) >= FIRST_FAILURES and not set(newest) - OWN_FAILURES


class LostMessages:
    """The smallest number of missing messages in the last `window_s` seconds, for one queue.

    A message between Redis and a claim is missing at one reading; a lost one is missing at every reading.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._readings: deque[tuple[float, int]] = deque()

    def add(self, missing: int, now_s: float) -> int:
        """Takes one reading into account. Returns what was missing at every one; 0 until they span the window."""
        self._readings.append((now_s, max(0, missing)))
        # One reading from before the window stays: what it found held when the window began.
        while len(self._readings) > 1 and self._readings[1][0] <= now_s - self._window_s:
            self._readings.popleft()
        if now_s - self._readings[0][0] < self._window_s:
            return 0
        return min(missing for _, missing in self._readings)
