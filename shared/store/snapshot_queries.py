"""What the coordinator reads for its snapshot: live studies, their limits, expired leases, messages on the way.

What a tick reads is bounded by what is open: closed tickets are never counted. Reads only, without locks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    ScalarSelect,
    Select,
    String,
    bindparam,
    case,
    cast,
    column,
    exists,
    func,
    literal,
    literal_column,
    select,
    table,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.sql.elements import ColumnElement

from highnoon.shared.domain.states import Ending, TicketState
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import LIVE_STUDIES, db_now, studies, tickets
from highnoon.shared.store.snapshot_rows import (
    ExpiringLease,
    QueuedTicket,
    ReadyTickets,
    StudyLoad,
    TrialTimes,
)
from highnoon.shared.store.study_records import record_of

# Optuna's tables as far as they are read here: its models would import all of Optuna.
_optuna_studies = table("studies", column("study_id"))
_optuna_directions = table("study_directions", column("study_id"), column("direction"), column("objective"))

_TRIAL_TIMES = text(
    """
    select s.study_id, greatest(
        (select avg(a.ended_at - a.started_at)
         from (select id, attempt from hn_tickets
               where study_id = s.study_id and state = 'closed' order by closed_at desc limit 8) t
         join hn_attempts a on a.ticket_id = t.id and a.attempt = t.attempt),
        (select avg(hn_now_1() - a.started_at)
         from (select id, attempt from hn_tickets where study_id = s.study_id and state = 'running' limit 100) t
         join hn_attempts a on a.ticket_id = t.id and a.attempt = t.attempt)
    ) as trial_s, (
        select count(*) from (select from hn_tickets
                              where study_id = s.study_id and state = 'closed' order by closed_at desc limit :at_most) t
    ) as ended
    from unnest(cast(:studies as bigint[])) as s (study_id)
    """
)


_RECENT_ENDINGS = text(
    """
    select s.id, array(
        select t.ending from hn_tickets t
        where t.study_id = s.id and t.state = 'closed' and t.closed_at >= s.started_at and t.ending <> 'cancelled'
        order by t.closed_at desc limit wanted.count) as endings
    from unnest(cast(:studies as bigint[]), cast(:counts as integer[])) as wanted (study_id, count)
    join hn_studies s on s.id = wanted.study_id
    """
)


class SnapshotQueries:
    """Questions of the coordinator. All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def loads(self) -> list[StudyLoad]:
        """The studies that are not over, with their open tickets counted; one statement."""
        names = ("waiting", "queued", "running", "age_s", "deleted", "directions")
        rows = [row._mapping for row in self._db.rows(_LOADS)]
        return [StudyLoad(study=record_of(row), **{name: row[name] for name in names}) for row in rows]

    def ready(self, study_ids: Collection[int], *, at_most: int) -> dict[int, ReadyTickets]:
        """Waiting tickets of these studies whose `not_before` has passed, counted up to `at_most` for each."""
        # As a subquery the clock is read once, and not for each ticket.
        is_due = tickets.c.not_before <= select(db_now()).scalar_subquery()
        waiting = select(tickets.c.attempt).where(*_of_study(TicketState.WAITING), is_due)
        # In the order of the index: without it all that waits is read before the limit applies.
        rows = waiting.order_by(tickets.c.ordinal).limit(at_most).correlate(studies).lateral()
        counts = (func.count(rows.c.attempt), func.count(rows.c.attempt).filter(rows.c.attempt > 0))
        each = select(studies.c.id, *counts).select_from(studies.outerjoin(rows, true()))
        found = self._db.rows(each.where(studies.c.id.in_(study_ids)).group_by(studies.c.id))
        return {study_id: ReadyTickets(ready, retried) for study_id, ready, retried in found}

    def trial_times(self, study_ids: Collection[int], *, count_at_most: int) -> dict[int, TrialTimes]:
        """By study: the mean of its newest trials, or the mean age of those that run where that is more."""
        rows = self._db.rows(_TRIAL_TIMES, studies=list(study_ids), at_most=count_at_most)
        return {row.study_id: TrialTimes(row.trial_s, row.ended) for row in rows if row.trial_s is not None}

    def best_values(self, maximized: Mapping[int, float], minimized: Mapping[int, float]) -> dict[int, float | None]:
        """The best value that has reached these studies' targets since their clocks began; None where none has.

        Of completed and feasible tickets. Earlier ones are passed over, in the index, as far as they reach it.
        """

        def best(of: Any, reaches_target: ColumnElement[bool]) -> ColumnElement[float]:
            completed = select(of).where(tickets.c.study_id == studies.c.id, tickets.c.ending == Ending.COMPLETED)
            return completed.where(reaches_target, tickets.c.closed_at >= studies.c.started_at).scalar_subquery()

        target = case({**maximized, **minimized}, value=studies.c.id)
        value = case(
            (studies.c.id.in_(maximized), best(func.max(tickets.c.value), tickets.c.value >= target)),
            else_=best(func.min(tickets.c.value), tickets.c.value <= target),
        )
        statement = select(studies.c.id, value.label("best")).where(studies.c.id.in_([*maximized, *minimized]))
        return {row.id: row.best for row in self._db.rows(statement)}

    def succeeded(self, study_ids: Collection[int]) -> set[int]:
        """Studies of which a ticket has completed."""
        if not study_ids:
            return set()
        completed = exists().where(tickets.c.study_id == studies.c.id, tickets.c.ending == Ending.COMPLETED)
        return {row.id for row in self._db.rows(select(studies.c.id).where(studies.c.id.in_(study_ids), completed))}

    def since_best(self, maximized: Collection[int], minimized: Collection[int], *, at_most: int) -> dict[int, int]:
        """How many tickets of these studies were closed after the best one, and since the clock began; a few at most.

        All of them while none has completed.
        """

        done = tickets.alias("done")

        def closed_at_best(order: ColumnElement[Any]) -> ScalarSelect[float]:
            completed = select(done.c.closed_at).where(
                done.c.study_id == studies.c.id, done.c.ending == Ending.COMPLETED, done.c.value.is_not(None)
            )
            # Of equals the first: the others brought nothing better.
            return completed.order_by(order, done.c.closed_at).limit(1).correlate(studies).scalar_subquery()

        best = case(
            (studies.c.id.in_(maximized), closed_at_best(done.c.value.desc())), else_=closed_at_best(done.c.value)
        )
        later = select(literal(1)).where(
            *_of_study(TicketState.CLOSED),
            tickets.c.closed_at >= studies.c.started_at,
            tickets.c.closed_at > func.coalesce(best, 0.0),
        )
        rows = later.limit(at_most).correlate(studies).subquery()
        count = select(func.count()).select_from(rows).scalar_subquery().label("later")
        found = self._db.rows(select(studies.c.id, count).where(studies.c.id.in_([*maximized, *minimized])))
        return {row.id: row.later for row in found}

    def recent_endings(self, counts: Mapping[int, int]) -> dict[int, list[str]]:
        """By study: how its last tickets ended since its clock began, newest first, as many as `counts` has for it.

        As they are stored; without those that a person has stopped.
        """
        found = self._db.rows(_RECENT_ENDINGS, studies=list(counts), counts=list(counts.values()))
        return {row.id: row.endings for row in found}

    def expiring(self, *, within_s: float) -> list[ExpiringLease]:
        """Leases that have expired by the database's clock, or will within so many seconds; the earliest first."""
        return [ExpiringLease(**row._mapping) for row in self._db.rows(_EXPIRING, within_s=within_s)]

    def queued(self) -> list[QueuedTicket]:
        """Tickets whose message was sent and not claimed, oldest first."""
        # By place: there may be thousands, at each tick.
        return [
            QueuedTicket(ticket_id=ticket_id, study_id=study_id, age_s=age_s, tried=attempt > 0)
            for ticket_id, study_id, age_s, attempt in self._db.rows(_QUEUED)
        ]

    def newest_started(self) -> dict[str, float]:
        """By queue: how long ago the newest message was sent whose ticket now runs for the first time."""
        return {row.queue: row.sent_s for row in self._db.rows(_NEWEST_STARTED)}

    def faults(self) -> dict[str, str]:
        """By name: what is wrong with live studies."""
        faulty = studies.c.state.in_(LIVE_STUDIES), studies.c.fault.is_not(None)
        return {row.name: row.fault for row in self._db.rows(select(studies.c.name, studies.c.fault).where(*faulty))}


def _of_study(state: TicketState) -> tuple[ColumnElement[bool], ...]:
    return tickets.c.study_id == studies.c.id, tickets.c.state == state


def first_waiting(of_study: ColumnElement[bool]) -> ScalarSelect[int]:
    """The ordinal of the first ticket that waits; null without one.

    Not an EXISTS: where a good part of the table waits, PostgreSQL expects to meet such a row soon and reads from the
    table's beginning, but the tickets of a study lie together, behind the tickets of older studies.
    """
    first = select(tickets.c.ordinal).where(of_study, tickets.c.state == TicketState.WAITING)
    return first.order_by(tickets.c.ordinal).limit(1).correlate(studies).scalar_subquery()


def _count(state: TicketState) -> ScalarSelect[int]:
    return select(func.count()).select_from(tickets).where(*_of_study(state)).scalar_subquery()


def _loads() -> Select[Any]:
    known = exists().where(_optuna_studies.c.study_id == studies.c.optuna_study_id)
    way = cast(_optuna_directions.c.direction, String)
    in_order: Any = aggregate_order_by(literal_column("','"), _optuna_directions.c.objective)
    directions = select(func.string_agg(way, in_order)).where(
        _optuna_directions.c.study_id == studies.c.optuna_study_id
    )
    return (
        select(
            studies,
            first_waiting(tickets.c.study_id == studies.c.id).is_not(None).label("waiting"),
            _count(TicketState.QUEUED).label("queued"),
            _count(TicketState.RUNNING).label("running"),
            func.coalesce(db_now() - studies.c.started_at, 0.0).label("age_s"),
            (~known).label("deleted"),
            directions.scalar_subquery().label("directions"),
        )
        .where(studies.c.state.in_(LIVE_STUDIES))
        .order_by(studies.c.id)
    )


# Of every tick: building a statement takes longer than PostgreSQL needs for it.
_LOADS = _loads()
_LEFT_S = (tickets.c.lease_expires_at - db_now()).label("left_s")
_EXPIRING = (
    select(tickets.c.id.label("ticket_id"), tickets.c.attempt, tickets.c.study_id, studies.c.name, _LEFT_S)
    .join(studies, studies.c.id == tickets.c.study_id)
    .where(tickets.c.state == TicketState.RUNNING, tickets.c.lease_expires_at < db_now() + bindparam("within_s"))
    .order_by(tickets.c.lease_expires_at)
)
_NEWEST_STARTED = (
    select(studies.c.queue, func.min(db_now() - tickets.c.queued_at).label("sent_s"))
    .join(studies, studies.c.id == tickets.c.study_id)
    .where(tickets.c.state == TicketState.RUNNING, tickets.c.attempt == 1, tickets.c.queued_at.is_not(None))
    .group_by(studies.c.queue)
)
_QUEUED = (
    select(tickets.c.id, tickets.c.study_id, db_now() - tickets.c.queued_at, tickets.c.attempt)
    .where(tickets.c.state == TicketState.QUEUED)
    .order_by(tickets.c.queued_at, tickets.c.ordinal)
)
