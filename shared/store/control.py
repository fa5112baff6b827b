"""What the coordinator reads and does: the snapshot's rows, dispatch, stop, close.

Every statement is conditional on the state that the row must be in, so that two coordinators at once, or one
that is cut off anywhere, do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, exists, func, or_, select, update

from highnoon.shared.domain.states import Ending, StudyState, TicketState
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, studies, tickets
from highnoon.shared.store.studies import StudyRecord, record_of

_LIVE = (StudyState.RUNNING, StudyState.PAUSED, StudyState.CANCELLING)


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketLoad:
    """One live study's tickets, counted."""

    study: StudyRecord
    by_state: dict[TicketState, int]
    ready: int
    """Waiting tickets whose `not_before` has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledTicket:
    """A settled ticket that Optuna may not know of yet; `age_s` since it was settled."""

    ticket_id: int
    attempt: int
    study_id: int
    trial_id: int | None
    outcome: Outcome
    age_s: float


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

    def loads(self) -> list[TicketLoad]:
        """The studies that are not over, with their tickets counted by state."""
        is_ready = and_(tickets.c.state == TicketState.WAITING, tickets.c.not_before <= db_now())
        with self._db.transaction() as connection:
            rows = (
                connection.execute(select(studies).where(studies.c.state.in_(_LIVE)).order_by(studies.c.id))
                .mappings()
                .all()
            )
            counted = connection.execute(
                select(tickets.c.study_id, tickets.c.state, func.count(), func.count().filter(is_ready))
                .where(tickets.c.study_id.in_([row["id"] for row in rows]))
                .group_by(tickets.c.study_id, tickets.c.state)
            ).all()
        loads = {row["id"]: TicketLoad(study=record_of(row), by_state={}, ready=0) for row in rows}
        for study_id, state, count, ready in counted:
            load = loads[study_id]
            by_state = {**load.by_state, TicketState(state): count}
            loads[study_id] = TicketLoad(study=load.study, by_state=by_state, ready=load.ready + ready)
        return list(loads.values())

    def expired(self) -> list[tuple[int, int]]:
        """(ticket, attempt) of leases that ran out by the database's clock."""
        statement = select(tickets.c.id, tickets.c.attempt).where(
            tickets.c.state == TicketState.RUNNING, tickets.c.lease_expires_at < db_now()
        )
        with self._db.transaction() as connection:
            return [(row.id, row.attempt) for row in connection.execute(statement)]

    def settled(self) -> list[SettledTicket]:
        """Tickets that are settled and not closed."""
        age = (db_now() - tickets.c.settled_at).label("age_s")
        columns = (tickets.c.id, tickets.c.attempt, tickets.c.study_id, tickets.c.trial_id, tickets.c.outcome)
        with self._db.transaction() as connection:
            rows = connection.execute(select(*columns, age).where(tickets.c.state == TicketState.SETTLED)).all()
        return [
            SettledTicket(
                ticket_id=row.id,
                attempt=row.attempt,
                study_id=row.study_id,
                trial_id=row.trial_id,
                outcome=Outcome.from_json(row.outcome),
                age_s=row.age_s,
            )
            for row in rows
        ]

    def queued(self) -> list[QueuedTicket]:
        """Tickets whose message was sent and not claimed, oldest first."""
        age = (db_now() - tickets.c.queued_at).label("age_s")
        statement = (
            select(tickets.c.id, tickets.c.study_id, age)
            .where(tickets.c.state == TicketState.QUEUED)
            .order_by(tickets.c.queued_at, tickets.c.ordinal)
        )
        with self._db.transaction() as connection:
            rows = connection.execute(statement).all()
        return [QueuedTicket(ticket_id=row.id, study_id=row.study_id, age_s=row.age_s) for row in rows]

    def dispatch(self, study_id: int, count: int) -> list[int]:
        """Marks up to `count` ready tickets as queued, lowest ordinal first; the caller sends their messages next."""
        ready = (
            select(tickets.c.id)
            .where(
                tickets.c.study_id == study_id,
                tickets.c.state == TicketState.WAITING,
                tickets.c.not_before <= db_now(),
                exists().where(studies.c.id == study_id, studies.c.state == StudyState.RUNNING),
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
            .returning(tickets.c.id)
        )
        with self._db.transaction() as connection:
            return sorted(connection.scalars(statement))

    def requeue(self, ticket_ids: Sequence[int]) -> list[int]:
        """Renews `queued_at` of tickets whose message is lost; returns those still queued, to be sent again."""
        statement = (
            update(tickets)
            .where(tickets.c.id.in_(ticket_ids), tickets.c.state == TicketState.QUEUED)
            .values(queued_at=db_now())
            .returning(tickets.c.id)
        )
        with self._db.transaction() as connection:
            return sorted(connection.scalars(statement))

    def stop(self, study_id: int, reason: str) -> None:
        """A limit is met: what has not begun is cancelled, what runs may end by itself."""
        with self._db.transaction() as connection:
            connection.execute(update(studies).where(studies.c.id == study_id).values(stop_reason=reason))
            connection.execute(
                update(tickets)
                .where(
                    tickets.c.study_id == study_id,
                    tickets.c.state.in_([TicketState.WAITING, TicketState.QUEUED]),
                )
                .values(state=TicketState.CANCELLED)
            )

    def finish(self, study_id: int, *, state: StudyState, reason: str) -> bool:
        """Closes the study if none of its tickets is open; False when one is."""
        open_states = [TicketState.WAITING, TicketState.QUEUED, TicketState.RUNNING, TicketState.SETTLED]
        none_open = ~exists().where(tickets.c.study_id == study_id, tickets.c.state.in_(open_states))
        statement = (
            update(studies)
            .where(studies.c.id == study_id, studies.c.state.in_(_LIVE), none_open)
            .values(state=state, stop_reason=func.coalesce(studies.c.stop_reason, reason), ended_at=db_now())
        )
        with self._db.transaction() as connection:
            # First the lock, then the look: a statement that waits for the row still sees the tickets of before, and
            # would close a study over the tickets that somebody has just added.
            connection.execute(select(studies.c.id).where(studies.c.id == study_id).with_for_update())
            return connection.execute(statement).rowcount == 1

    def mark_started(self, study_id: int) -> None:
        """The first dispatch starts the study's own clock (its `timeout`)."""
        statement = (
            update(studies).where(studies.c.id == study_id, studies.c.started_at.is_(None)).values(started_at=db_now())
        )
        with self._db.transaction() as connection:
            connection.execute(statement)

    def age_s(self, study_id: int) -> float:
        """Seconds since its first dispatch; 0 before."""
        statement = select(db_now() - studies.c.started_at).where(studies.c.id == study_id)
        with self._db.transaction() as connection:
            return float(connection.scalar(statement) or 0.0)

    def recent_endings(self, study_id: int, count: int) -> list[Ending]:
        """How the last `count` tickets ended that were settled since the study's clock began, newest first."""
        statement = (
            select(tickets.c.ending)
            .join(studies, studies.c.id == tickets.c.study_id)
            .where(tickets.c.study_id == study_id, tickets.c.settled_at >= studies.c.started_at)
            .order_by(tickets.c.settled_at.desc())
            .limit(count)
        )
        with self._db.transaction() as connection:
            return [Ending(ending) for ending in connection.scalars(statement)]

    def bound_trials(self, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int | None]:
        """Of (ticket, attempt) those with a living right to an Optuna trial, and the number they bound (None: not yet).

        Living means leased, or settled and about to be told.
        """
        if not pairs:
            return {}
        chosen = or_(*[and_(tickets.c.id == ticket, tickets.c.attempt == attempt) for ticket, attempt in pairs])
        statement = (
            select(tickets.c.id, tickets.c.attempt, attempts.c.trial_number)
            .join(attempts, and_(attempts.c.ticket_id == tickets.c.id, attempts.c.attempt == tickets.c.attempt))
            .where(tickets.c.state.in_([TicketState.RUNNING, TicketState.SETTLED]), chosen)
        )
        with self._db.transaction() as connection:
            return {(row.id, row.attempt): row.trial_number for row in connection.execute(statement)}
