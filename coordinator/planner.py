"""The planner: from a Snapshot of the ledger to the Actions that repair and advance it. Pure.

All that may influence a decision stands in the Snapshot; all that may be done stands in Action. Every Action is
idempotent or conditional on the state that it was planned for, so that a tick may be cut off anywhere and two
coordinators at once are harmless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from highnoon.coordinator.quarantine import Quarantine, quarantined
from highnoon.shared.domain.states import OPTUNA_STATE, Ending, StudyState, TicketState, TrialState
from highnoon.shared.store.control import QueuedTicket, SettledTicket, TicketLoad
from highnoon.shared.store.node_failures import Streak
from highnoon.shared.store.optuna_trials import OwnedTrial

_MOST_COPIES = 10
"""Of a ticket's message: past that what is missing is somebody who takes them, and Redis would only fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLoad:
    """One resource: slots of living workers, messages in Redis (None when it is away), and how many are lost.

    `lost`: tickets that have been queued for a while without a message to explain it.
    """

    slots: int
    messages: int | None
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """An Optuna trial that is RUNNING for an attempt without a living right to it."""

    study_id: int
    trial: OwnedTrial


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that the planner obeys; seconds."""

    lease_s: float
    tell_grace_s: float
    redispatch_s: float
    dispatch_buffer: int
    quarantine_after: int = 0
    """Failures in a row before a node may be put into quarantine; 0 is never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the planner may know. `steady_s`: for how long this leader's ticks have succeeded without a break."""

    steady_s: float
    loads: tuple[TicketLoad, ...] = ()
    queues: Mapping[str, QueueLoad] = field(default_factory=dict)
    expired: tuple[tuple[int, int], ...] = ()
    settled: tuple[SettledTicket, ...] = ()
    queued: tuple[QueuedTicket, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    deleted: frozenset[int] = frozenset()
    """Studies that somebody deleted in Optuna."""
    ages_s: Mapping[int, float] = field(default_factory=dict)
    """By study, only for studies with a `timeout`."""
    best_values: Mapping[int, float | None] = field(default_factory=dict)
    """By study, only for studies with a `target_value`."""
    recent_endings: Mapping[int, tuple[Ending, ...]] = field(default_factory=dict)
    """By study, newest first, only for studies with `max_failures_in_a_row`."""
    streaks: tuple[Streak, ...] = ()
    """Of active nodes beside which there are others; looked at now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Tell Optuna a settled outcome that its worker did not get to tell, then close."""

    settled: SettledTicket


@dataclass(frozen=True, slots=True, kw_only=True)
class Reap:
    """Give back, or settle as lost, an attempt whose lease ran out."""

    ticket_id: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailOrphan:
    """Tell Optuna FAIL for a trial that nobody runs any more."""

    orphan: Orphan


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A limit is met: cancel what has not begun."""

    study_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Nothing of the study is open: it is over."""

    study_id: int
    name: str
    state: StudyState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resend:
    """Messages that Redis lost are sent again."""

    study_id: int
    name: str
    resource: str
    ticket_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Queue up to `count` ready tickets and send their messages."""

    study_id: int
    name: str
    resource: str
    count: int


Action = Tell | Reap | FailOrphan | Stop | Close | Quarantine | Resend | Dispatch


def plan(snapshot: Snapshot, rules: Rules) -> list[Action]:
    """What to do now, in the order in which it is best done."""
    return [
        *_tell_settled(snapshot, rules),
        *_reap_expired(snapshot, rules),
        *_fail_orphans(snapshot),
        *_stop_at_limits(snapshot),
        *_close_finished(snapshot),
        *quarantined(snapshot.streaks, rules.quarantine_after),
        *_resend_lost(snapshot, rules),
        *_dispatch_ready(snapshot, rules),
    ]


def _tell_settled(snapshot: Snapshot, rules: Rules) -> Iterator[Tell]:
    """The worker tells first; a lost attempt has no worker to wait for."""
    for ticket in snapshot.settled:
        if ticket.age_s >= rules.tell_grace_s or ticket.outcome.ending is Ending.LOST:
            yield Tell(settled=ticket)


def _reap_expired(snapshot: Snapshot, rules: Rules) -> Iterator[Reap]:
    """No massacre after an outage: every lease is expired the moment PostgreSQL is back, so holders renew first."""
    if snapshot.steady_s < rules.lease_s:
        return
    for ticket_id, attempt in snapshot.expired:
        yield Reap(ticket_id=ticket_id, attempt=attempt)


def _fail_orphans(snapshot: Snapshot) -> Iterator[FailOrphan]:
    for orphan in snapshot.orphans:
        yield FailOrphan(orphan=orphan)


def _stop_at_limits(snapshot: Snapshot) -> Iterator[Stop]:
    for load in snapshot.loads:
        reason = load.study.stop_reason or _limit_met(load, snapshot)
        if reason is not None and _count(load, TicketState.WAITING, TicketState.QUEUED):
            yield Stop(study_id=load.study.id, reason=reason)


def _limit_met(load: TicketLoad, snapshot: Snapshot) -> str | None:
    spec, study_id = load.study.spec, load.study.id
    if study_id in snapshot.deleted:
        return "deleted"
    timeout_s = spec.get("timeout")
    if timeout_s is not None and snapshot.ages_s.get(study_id, 0.0) >= timeout_s:
        return "timeout"
    target, best = spec.get("target_value"), snapshot.best_values.get(study_id)
    if target is not None and best is not None and (best >= target if _maximizes(load) else best <= target):
        return "target_value"
    most = spec.get("max_failures_in_a_row")
    recent = snapshot.recent_endings.get(study_id, ())[:most]
    if most is not None and len(recent) == most and all(OPTUNA_STATE[ending] is TrialState.FAIL for ending in recent):
        return "failures_in_a_row"
    return None


def _close_finished(snapshot: Snapshot) -> Iterator[Close]:
    """Only when no Optuna trial of it is left RUNNING: whoever sees it finished may read all of it."""
    open_states = (TicketState.WAITING, TicketState.QUEUED, TicketState.RUNNING, TicketState.SETTLED)
    with_orphans = {orphan.study_id for orphan in snapshot.orphans}
    for load in snapshot.loads:
        if _count(load, *open_states) or load.study.id in with_orphans:
            continue
        cancelled = load.study.state is StudyState.CANCELLING
        ended = "deleted" if load.study.id in snapshot.deleted else "n_trials"
        yield Close(
            study_id=load.study.id,
            name=load.study.name,
            state=StudyState.CANCELLED if cancelled else StudyState.FINISHED,
            reason="cancelled" if cancelled else ended,
        )


def _resend_lost(snapshot: Snapshot, rules: Rules) -> Iterator[Resend]:
    """More tickets are queued than Redis can explain, the oldest first; or nobody claims though slots are free."""
    loads = {load.study.id: load for load in snapshot.loads}
    for resource, queue in snapshot.queues.items():
        if queue.messages is None:
            continue
        queued = [
            ticket
            for ticket in snapshot.queued
            if ticket.study_id in loads and loads[ticket.study_id].study.queue == resource
        ]
        lost, others = queued[: queue.lost], queued[queue.lost :]
        if queue.slots > _leased(snapshot, resource) and queue.messages < _MOST_COPIES * len(queued):
            lost += [ticket for ticket in others if ticket.age_s >= rules.redispatch_s]
        for load in loads.values():
            ticket_ids = tuple(ticket.ticket_id for ticket in lost if ticket.study_id == load.study.id)
            if ticket_ids:
                yield Resend(study_id=load.study.id, name=load.study.name, resource=resource, ticket_ids=ticket_ids)


def _dispatch_ready(snapshot: Snapshot, rules: Rules) -> Iterator[Dispatch]:
    """Never more than the free slots and a small buffer, shared fairly among the studies of a resource."""
    for resource, queue in snapshot.queues.items():
        if queue.messages is None:
            continue
        wanting = {
            load.study.id: load
            for load in snapshot.loads
            if load.study.queue == resource and load.study.state is StudyState.RUNNING and load.ready
            if load.study.stop_reason is None and _limit_met(load, snapshot) is None
        }
        free_slots = max(0, queue.slots - _leased(snapshot, resource))
        room = free_slots + rules.dispatch_buffer * queue.slots - _queued(snapshot, resource)
        for study_id, count in _fair_shares({i: load.ready for i, load in wanting.items()}, room).items():
            load = wanting[study_id]
            yield Dispatch(study_id=study_id, name=load.study.name, resource=resource, count=count)


def _fair_shares(wanted: Mapping[int, int], room: int) -> dict[int, int]:
    """Splits `room` so that no study gets more than it wants and none is short while another has plenty."""
    shares: dict[int, int] = {}
    left = max(0, room)
    for position, (study_id, want) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        share = min(want, -(-left // (len(wanted) - position)))
        if share:
            shares[study_id] = share
        left -= share
    return shares


def _count(load: TicketLoad, *states: TicketState) -> int:
    return sum(load.by_state.get(state, 0) for state in states)


def _leased(snapshot: Snapshot, resource: str) -> int:
    return sum(_count(load, TicketState.RUNNING) for load in snapshot.loads if load.study.queue == resource)


def _queued(snapshot: Snapshot, resource: str) -> int:
    return sum(_count(load, TicketState.QUEUED) for load in snapshot.loads if load.study.queue == resource)


def _maximizes(load: TicketLoad) -> bool:
    return load.study.spec.get("direction") == "maximize"
