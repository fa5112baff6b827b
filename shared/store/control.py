"""What the coordinator reads and does: the snapshot's rows, dispatch, stop, close.

Every statement is conditional on the state that the row must be in, so that two coordinators at once, or one that is
cut off anywhere, do no harm. What a tick reads is bounded by what is open: closed tickets are never counted. No
statement waits for a row that another client has locked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    ScalarSelect,
    Select,
    String,
    Table,
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
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.sql.elements import ColumnElement

from highnoon.shared.domain.states import Ending, StudyState, TicketState
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import LIVE_STUDIES, db_now, studies, tickets
from highnoon.shared.store.studies import StudyRecord, record_of

_MOST_DROPPED = 20_000
"""Tickets that one statement cancels: within its deadline also where a study of a million is stopped early."""

# Optuna's tables as far as they are read here: its models would import all of Optuna.
_optuna_studies = table("studies", column("study_id"))
_optuna_directions = table("study_directions", column("study_id"), column("direction"), column("objective"))


_SECONDS_OF_TRIALS = text(
    """
    select s.study_id, greatest(
        (select avg(a.ended_at - a.started_at)
         from (select id, attempt from hn_tickets
               where study_id = s.study_id and state = 'closed' order by closed_at desc limit 8) t
         join hn_attempts a on a.ticket_id = t.id and a.attempt = t.attempt),
        (select avg(hn_now_1() - a.started_at)
         from (select id, attempt from hn_tickets where study_id = s.study_id and state = 'running' limit 100) t
         join hn_attempts a on a.ticket_id = t.id and a.attempt = t.attempt)
    ) as seconds
    from unnest(cast(:studies as bigint[])) as s (study_id)
    """
)


PLUGIN_FAULT = "plug-in "
"""How a fault begins that a worker found, and not the coordinator."""


class ReadyTickets(NamedTuple):
    """Tickets of one study that may be dispatched, and how many of them have been tried before."""

    ready: int
    retried: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLoad:
    """One live study and its open tickets."""

    study: StudyRecord
    waiting: bool = False
    """Whether any ticket waits, be it ready or not."""
    ready: int = 0
    """Waiting tickets whose `not_before` has passed; counted only as far as they could be dispatched now."""
    retried: int = 0
    """How many of the counted ones have been tried before."""
    queued: int = 0
    running: int = 0
    trial_s: float = 0.0
    """How long a trial takes; infinite where none has begun. Read only for a study with ready tickets."""
    age_s: float = 0.0
    """Since its first dispatch."""
    deleted: bool = False
    """Optuna does not have it any more."""
    directions: str | None = None
    """As Optuna has them, in their order, with commas."""
    best_value: float | None = None
    """Of feasible trials; read only for a study with a `target_value`."""
    has_success: bool = False
    """Whether a trial has completed; read only for a study whose last trials have all failed."""
    recent_endings: tuple[Ending, ...] = ()
    """Newest first, as many as may end the study."""
    since_best: int = 0
    """How many trials have ended since the best one; read only for a study with `early_stop`."""
    fault: str | None = None
    """What is wrong with its data. Nothing of it is started meanwhile."""

    @property
    def maximizes(self) -> bool:
        """Whether a higher value is better."""
        return self.study.spec.get("direction") == "maximize"

    @property
    def priority(self) -> int:
        """Its share of the slots, beside other studies of the queue."""
        return int(self.study.spec.get("priority", 1))

    @property
    def max_running(self) -> int | None:
        """How many of its trials may be queued and running."""
        most = self.study.spec.get("max_running")
        return None if most is None else int(most)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredLease:
    """An attempt whose lease ran out by the database's clock."""

    ticket_id: int
    attempt: int
    study_id: int
    name: str
    """Of the study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedTicket:
    """A ticket whose message ought to be in Redis; `age_s` since it was sent."""

    ticket_id: int
    study_id: int
    age_s: float


class Control:
    """Statements of the coordinator. All raise ServiceUnavailable when the database is unreachable."""

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

    def seconds_of_trials(self, study_ids: Collection[int]) -> dict[int, float]:
        """By study: the mean of its newest trials, or the mean age of those that run where that is more."""
        rows = self._db.rows(_SECONDS_OF_TRIALS.bindparams(studies=list(study_ids)))
        return {row.study_id: row.seconds for row in rows if row.seconds is not None}

    def best_values(self, maximized: Collection[int], minimized: Collection[int]) -> dict[int, float | None]:
        """The best value of these studies' completed and feasible tickets; None before the first."""

        def best(of: Any) -> ColumnElement[float]:
            completed = select(of).where(tickets.c.study_id == studies.c.id, tickets.c.ending == Ending.COMPLETED)
            return completed.scalar_subquery()

        value = case(
            (studies.c.id.in_(maximized), best(func.max(tickets.c.value))), else_=best(func.min(tickets.c.value))
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

    def recent_endings(self, study_ids: Collection[int], count: int) -> dict[int, list[str]]:
        """How the last `count` tickets of each study ended since its clock began, newest first. As they are stored."""
        found = self._db.rows(_RECENT_ENDINGS, studies=list(study_ids), count=count)
        return {row.id: row.endings for row in found}

    def expired(self) -> list[ExpiredLease]:
        """Leases that ran out by the database's clock, the longest first."""
        return [ExpiredLease(**row._mapping) for row in self._db.rows(_EXPIRED)]

    def queued(self) -> list[QueuedTicket]:
        """Tickets whose message was sent and not claimed, oldest first."""
        # By place: there may be thousands, at each tick.
        return [
            QueuedTicket(ticket_id=ticket_id, study_id=study_id, age_s=age_s)
            for ticket_id, study_id, age_s in self._db.rows(_QUEUED)
        ]

    def dispatch(self, study_id: int, count: int) -> dict[int, int]:
        """Marks up to `count` ready tickets as queued, lowest ordinal first; the caller sends their messages next.

        Returns how often each has been tried already.

        The first dispatch starts the study's own clock (its `timeout`).
        """
        may_start = exists().where(
            studies.c.id == study_id, studies.c.state == StudyState.RUNNING, studies.c.stop_reason.is_(None)
        )
        ready = (
            select(tickets.c.id)
            .where(
                tickets.c.study_id == study_id,
                tickets.c.state == TicketState.WAITING,
                tickets.c.not_before <= db_now(),
                may_start,
            )
            .order_by(tickets.c.ordinal)
            .limit(count)
            .with_for_update(skip_locked=True)
            # A plain subquery may run once per row of the join, and the limit would not hold.
            .cte("ready")
        )
        statement = (
            update(tickets)
            .where(tickets.c.id.in_(select(ready.c.id)), tickets.c.state == TicketState.WAITING)
            .values(state=TicketState.QUEUED, queued_at=db_now())
            .returning(tickets.c.id, tickets.c.attempt)
        )
        not_started = _unlocked(studies, studies.c.id == study_id, studies.c.started_at.is_(None))
        clock = update(studies).where(studies.c.id.in_(not_started)).values(started_at=db_now()).cte("clock")
        statement = statement.add_cte(clock)
        return {row.id: row.attempt for row in sorted(self._db.rows(statement), key=lambda row: int(row.id))}

    def requeue(self, ticket_ids: Sequence[int]) -> list[int]:
        """Renews `queued_at` of tickets whose message is lost; returns those still queued, to be sent again."""
        queued = _unlocked(tickets, tickets.c.id.in_(ticket_ids), tickets.c.state == TicketState.QUEUED)
        statement = update(tickets).where(tickets.c.id.in_(queued)).values(queued_at=db_now())
        return sorted(row.id for row in self._db.rows(statement.returning(tickets.c.id)))

    def stop(self, study_id: int, reason: str, *, spec_version: int) -> bool:
        """A limit is met: cancels what has not begun; what runs may end by itself.

        False, with nothing done, when the study was changed since `spec_version` (trials were added, say) or another
        reason ends it already.
        """
        unchanged = _unlocked(
            studies,
            studies.c.id == study_id,
            studies.c.state.in_(LIVE_STUDIES),
            studies.c.spec_version == spec_version,
            func.coalesce(studies.c.stop_reason, reason) == reason,
        )
        not_begun = (
            tickets.c.study_id == study_id,
            tickets.c.state.in_([TicketState.WAITING, TicketState.QUEUED]),
        )
        with self._db.transaction() as connection:
            stop = update(studies).where(studies.c.id.in_(unchanged)).values(stop_reason=reason)
            if connection.execute(stop).rowcount != 1:
                return False
            dropped = update(tickets).where(
                *not_begun, tickets.c.id.in_(_unlocked(tickets, *not_begun).limit(_MOST_DROPPED))
            )
            connection.execute(dropped.values(state=TicketState.CANCELLED))
        return True

    def finish(self, study_id: int, *, before: StudyState, state: StudyState, reason: str) -> bool:
        """Moves the study from `before` to its final state if none of its tickets is open; False otherwise."""
        of_study = tickets.c.study_id == study_id
        any_open = [
            _first_waiting(of_study).is_not(None),
            *[
                exists().where(of_study, tickets.c.state == state)
                for state in (TicketState.QUEUED, TicketState.RUNNING)
            ],
        ]
        statement = (
            update(studies)
            .where(studies.c.id == study_id, studies.c.state == before, *[~found for found in any_open])
            .values(state=state, stop_reason=func.coalesce(studies.c.stop_reason, reason), ended_at=db_now())
            .values(fault=None)
        )
        with self._db.transaction() as connection:
            # The lock first: a statement that waits for the row still reads the tickets of before, and would close a
            # study over tickets that were added meanwhile.
            is_ours = connection.scalar(_unlocked(studies, studies.c.id == study_id)) is not None
            return is_ours and connection.execute(statement).rowcount == 1

    def record_plugin_fault(self, study_id: int, fault: str) -> None:
        """Keeps what is wrong with a study's own sampler or pruner: nothing of it is started for a while."""
        self.record_fault(study_id, f"{PLUGIN_FAULT}{fault}")

    def record_fault(self, study_id: int, fault: str | None) -> None:
        """Keeps what is wrong with a study's data, for people; None when it is mended."""
        other = _unlocked(studies, studies.c.id == study_id, studies.c.fault.is_distinct_from(fault))
        self._db.changed(update(studies).where(studies.c.id.in_(other)).values(fault=fault))

    def faults(self) -> dict[str, str]:
        """By name: what is wrong with live studies."""
        faulty = studies.c.state.in_(LIVE_STUDIES), studies.c.fault.is_not(None)
        return {row.name: row.fault for row in self._db.rows(select(studies.c.name, studies.c.fault).where(*faulty))}


def _unlocked(of: Table, *conditions: ColumnElement[bool]) -> Select[tuple[int]]:
    """Locks the rows that meet the conditions, except those that another client has locked: a later tick does these.

    Without that, a client that hangs in the middle of its transaction would stop the work for all studies.
    """
    return select(of.c.id).where(*conditions).with_for_update(skip_locked=True)


def _of_study(state: TicketState) -> tuple[ColumnElement[bool], ...]:
    return tickets.c.study_id == studies.c.id, tickets.c.state == state


def _first_waiting(of_study: ColumnElement[bool]) -> ScalarSelect[int]:
    """The ordinal of the first ticket that waits; null without one.

    Not an EXISTS: where a good part of the table waits, PostgreSQL expects to meet such a row soon and reads from the
    table's beginning, but the tickets of a study lie together, behind those of all older ones.
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
            _first_waiting(tickets.c.study_id == studies.c.id).is_not(None).label("waiting"),
            _count(TicketState.QUEUED).label("queued"),
            _count(TicketState.RUNNING).label("running"),
            func.coalesce(db_now() - studies.c.started_at, 0.0).label("age_s"),
            (studies.c.optuna_study_id.is_not(None) & ~known).label("deleted"),
            directions.scalar_subquery().label("directions"),
        )
        .where(studies.c.state.in_(LIVE_STUDIES))
        .order_by(studies.c.id)
    )


def _recent_endings() -> Select[Any]:
    newest = (
        select(tickets.c.ending)
        .where(
            tickets.c.study_id == studies.c.id,
            tickets.c.state == TicketState.CLOSED,
            tickets.c.closed_at >= studies.c.started_at,
        )
        .order_by(tickets.c.closed_at.desc())
        .limit(bindparam("count"))
        .scalar_subquery()
    )
    endings = func.array(newest, type_=ARRAY(String)).label("endings")
    return select(studies.c.id, endings).where(studies.c.id.in_(bindparam("studies", expanding=True)))


# Of every tick: building a statement takes longer than PostgreSQL needs for it.
_LOADS = _loads()
_RECENT_ENDINGS = _recent_endings()
_EXPIRED = (
    select(tickets.c.id.label("ticket_id"), tickets.c.attempt, tickets.c.study_id, studies.c.name)
    .join(studies, studies.c.id == tickets.c.study_id)
    .where(tickets.c.state == TicketState.RUNNING, tickets.c.lease_expires_at < db_now())
    .order_by(tickets.c.lease_expires_at)
)
_QUEUED = (
    select(tickets.c.id.label("ticket_id"), tickets.c.study_id, (db_now() - tickets.c.queued_at).label("age_s"))
    .where(tickets.c.state == TicketState.QUEUED)
    .order_by(tickets.c.queued_at, tickets.c.ordinal)
)
