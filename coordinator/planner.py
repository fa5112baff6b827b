"""The planner: from a Snapshot of the ledger to the Actions that repair and advance it. Pure.

All that may influence a decision stands in the Snapshot; all that may be done stands in Action. Every Action is
idempotent or conditional on the state that it was planned for, so that a tick may be cut off anywhere and two
coordinators at once are harmless.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from highnoon.coordinator.shares import Room, fair_shares, most_messages
from highnoon.shared.domain.limits import limit_met
from highnoon.shared.domain.states import StudyState
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.node_queries import Streak
from highnoon.shared.store.snapshot_rows import ExpiringLease, QueuedTicket, StudyLoad

_RARE = 1e-5
"""How improbable a streak must be at the others' rate: six in a row beside five successes, seventeen if half fail."""

LOST_AFTER_S = 5.0
"""A message may take so long from Redis to a claim."""

_MOST_COPIES = 10
"""Of a ticket's message: beyond that no worker takes messages, and more of them would only fill Redis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLoad:
    """One resource: slots of active workers, messages in Redis (None while it is away), and how many are lost.

    `shared`: how many of the slots serve another resource as well, by that one.
    `lost`: tickets that have been queued for a while without a message to explain it.
    """

    slots: int
    messages: int | None
    lost: int = 0
    shared: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the planner may know. `steady_s`: for how long no tick of this leader has met an outage."""

    steady_s: float
    loads: tuple[StudyLoad, ...] = ()
    queues: Mapping[str, QueueLoad] = field(default_factory=dict)
    expired: tuple[ExpiringLease, ...] = ()
    next_expiry_s: float = math.inf
    """In how many seconds the next lease expires, where that is before the next regular tick."""
    queued: tuple[QueuedTicket, ...] = ()
    started: Mapping[str, float] = field(default_factory=dict)
    """By resource: how long ago the newest message was sent whose ticket now runs for the first time. Read only where a
    ticket that was tried before has been queued for a while."""
    turns: Mapping[int, float] = field(default_factory=dict)
    """By study: the turn of its last dispatch; none before the first one."""
    streaks: tuple[Streak, ...] = ()
    """Of active nodes beside which there are others; read now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAction:
    """Something to do for one study. When it fails, that is the fault of this study alone."""

    study_id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reap(StudyAction):
    """Give back, or close as lost, an attempt whose lease ran out."""

    ticket_id: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(StudyAction):
    """A limit is met: cancel what has not begun, unless the study was changed since `spec_version`."""

    reason: str
    spec_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(StudyAction):
    """Nothing of the study is open: it moves from the state `before` to `state`."""

    before: StudyState
    state: StudyState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resend(StudyAction):
    """Messages that Redis lost are sent again."""

    resource: str
    ticket_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch(StudyAction):
    """Queue up to `count` ready tickets and send their messages."""

    resource: str
    count: int
    tried: int = 0
    """How many of them have been tried before: those go to the head of the queue."""
    turn: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Give a node that fails where others do not nothing more, until a person reinstates it."""

    worker_id: str
    reason: str


Action = Reap | Stop | Close | Quarantine | Resend | Dispatch


def plan(snapshot: Snapshot, settings: Settings) -> list[Action]:
    """What to do now, in the order in which it is best done."""
    return [
        *_reap_expired(snapshot, settings),
        *_stop_at_limits(snapshot),
        *_close_finished(snapshot),
        *quarantined(snapshot.streaks, settings.quarantine_after),
        *_resend_lost(snapshot, settings),
        *_dispatch_ready(snapshot, settings),
    ]


def _reap_expired(snapshot: Snapshot, settings: Settings) -> Iterator[Reap]:
    """After an outage every lease is expired the moment PostgreSQL is back: the holders renew first."""
    if snapshot.steady_s >= settings.lease_s:
        for lease in snapshot.expired:
            yield Reap(study_id=lease.study_id, name=lease.name, ticket_id=lease.ticket_id, attempt=lease.attempt)


def _stop_at_limits(snapshot: Snapshot) -> Iterator[Stop]:
    for load in snapshot.loads:
        reason = load.study.stop_reason or _limit_met(load)
        if reason is not None and (load.waiting or load.queued):
            study = load.study
            yield Stop(study_id=study.id, name=study.name, reason=reason, spec_version=study.spec_version)


def _limit_met(load: StudyLoad) -> str | None:
    """Why the study ends before its last ticket. A faulty study has no limits: its specification cannot be trusted."""
    if load.deleted:
        return "deleted"
    if load.fault is not None:
        return None
    return limit_met(
        load.study.spec,
        age_s=load.age_s,
        best_value=load.best_value,
        has_success=load.has_success,
        recent_endings=load.recent_endings,
        since_best=load.since_best,
    )


def _close_finished(snapshot: Snapshot) -> Iterator[Close]:
    for load in snapshot.loads:
        if load.waiting or load.queued or load.running:
            continue
        cancelled = load.study.state is StudyState.CANCELLING
        ended = "deleted" if load.deleted else "n_trials"
        yield Close(
            study_id=load.study.id,
            name=load.study.name,
            before=load.study.state,
            state=StudyState.CANCELLED if cancelled else StudyState.FINISHED,
            reason="cancelled" if cancelled else ended,
        )


def _resend_lost(snapshot: Snapshot, settings: Settings) -> Iterator[Resend]:
    """More tickets are queued than Redis explains, or one is passed over, or none is claimed though slots are free."""
    for resource, queue in snapshot.queues.items():
        if queue.messages is None:
            continue
        names = {load.study.id: load.study.name for load in snapshot.loads if load.study.queue == resource}
        queued = sorted((ticket for ticket in snapshot.queued if ticket.study_id in names), key=_by_message)
        lost, others = queued[: queue.lost], queued[queue.lost :]
        is_stuck = _is_idle(snapshot, resource) and queue.messages < _MOST_COPIES * len(queued)
        started_s = snapshot.started.get(resource, math.inf)
        lost += [
            ticket
            for ticket in others
            if _is_passed_over(ticket, started_s) or (is_stuck and ticket.age_s >= settings.redispatch_s)
        ]
        for study_id, name in names.items():
            ticket_ids = tuple(ticket.ticket_id for ticket in lost if ticket.study_id == study_id)
            if ticket_ids:
                yield Resend(study_id=study_id, name=name, resource=resource, ticket_ids=ticket_ids)


def _is_passed_over(ticket: QueuedTicket, started_s: float) -> bool:
    """Whether the message of a ticket that was tried before is probably lost: it went to the head of the queue, and one
    that was sent later, to the end, has been taken. Or its worker still unpacks code: then one too many is sent.

    This needs no window, which an outage or other messages on the queue would restart.
    """
    return ticket.tried and ticket.age_s >= LOST_AFTER_S and started_s < ticket.age_s


def _by_message(ticket: QueuedTicket) -> bool:
    """Sorts by the position of the message: tickets that were tried are taken first, the others oldest first.

    A message that is younger than the window is not one of those that were missing for all of it.
    """
    return not (ticket.tried and ticket.age_s >= LOST_AFTER_S)


def _dispatch_ready(snapshot: Snapshot, settings: Settings) -> Iterator[Dispatch]:
    """Never more than the free slots and a small buffer, shared fairly among the studies of a resource."""
    tried = Counter(ticket.study_id for ticket in snapshot.queued if ticket.tried)
    for resource, queue in snapshot.queues.items():
        if queue.messages is None:
            continue
        loads = [load for load in snapshot.loads if load.study.queue == resource]
        wanting = [load for load in loads if _may_start(load) and most_messages(load) > 0]
        queued = sum(load.queued for load in loads)
        free = _free_slots(snapshot, resource)
        room = Room(slots=queue.slots, free=free, queued=queued, buffer=settings.dispatch_buffer)
        shares = fair_shares(wanting, room, snapshot.turns, tried)
        for load in wanting:
            if share := shares.get(load.study.id):
                yield Dispatch(
                    study_id=load.study.id,
                    name=load.study.name,
                    resource=resource,
                    count=share.count,
                    tried=share.tried,
                    turn=share.turn,
                )


def _may_start(load: StudyLoad) -> bool:
    study = load.study
    unlimited = study.stop_reason is None and load.fault is None and _limit_met(load) is None
    return bool(load.ready) and study.state is StudyState.RUNNING and unlimited


def slots_wait(snapshot: Snapshot) -> bool:
    """Whether slots that a study could use had run out of messages: this tick came late for them."""
    return any(
        queue.messages == 0 and _free_slots(snapshot, load.study.queue) and _may_start(load) and most_messages(load) > 0
        for load in snapshot.loads
        if (queue := snapshot.queues.get(load.study.queue)) is not None
    )


def _free_slots(snapshot: Snapshot, resource: str) -> int:
    return max(0, snapshot.queues[resource].slots - _running(snapshot, resource))


def _is_idle(snapshot: Snapshot, resource: str) -> bool:
    """Whether a slot of a resource must be free, though trials of other resources may run in those that serve both."""
    shared = snapshot.queues[resource].shared
    taken = sum(min(_running(snapshot, other), slots) for other, slots in shared.items())
    return _free_slots(snapshot, resource) > taken


def _running(snapshot: Snapshot, resource: str) -> int:
    return sum(load.running for load in snapshot.loads if load.study.queue == resource)


def quarantined(streaks: Sequence[Streak], at_least: int) -> Iterator[Quarantine]:
    """The nodes that are to get nothing more; none is judged by fewer than `at_least` failures in a row, 0 judges none.

    A broken node fails fast, and would use up all tickets of a study; a broken study fails on every node. So a node is
    compared with the others at the same studies.
    """
    for streak in streaks:
        if 0 < at_least <= streak.length and _is_unlikely(streak):
            causes = ", ".join(f"{cause} {count}" for cause, count in streak.causes.items())
            yield Quarantine(
                worker_id=streak.worker_id,
                reason=f"its last {streak.length} attempts failed ({causes}); "
                f"on other nodes {streak.others_failed} of {streak.others_ended}",
            )


def _is_unlikely(streak: Streak) -> bool:
    """The others' rate by Laplace's rule of succession, since few attempts say little. One of them must succeed."""
    if streak.others_failed == streak.others_ended:
        return False
    rate = (streak.others_failed + 1) / (streak.others_ended + 2)
    return bool(rate**streak.length < _RARE)
