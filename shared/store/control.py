"""What the coordinator does to studies and tickets: dispatch, send again, stop, finish, and record faults.

Every statement is conditional on the state that the row must be in, so that two coordinators at once, or one that is
cut off anywhere, do no harm. No statement waits for a row that another client has locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import CTE, Select, Table, exists, func, select, union_all, update
from sqlalchemy.sql.elements import ColumnElement

from highnoon.shared.domain.states import StudyState, TicketState
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import LIVE_STUDIES, db_now, studies, tickets
from highnoon.shared.store.snapshot_queries import first_waiting

_MOST_DROPPED = 20_000
"""Tickets that one statement cancels: within its deadline also where a study of a million is stopped early."""

PLUGIN_FAULT, DECLINED_FAULT = "plug-in ", "declined: "
"""How a fault begins that a worker found, and not the coordinator. The second one holds nothing up."""


class Control:
    """Statements of the coordinator. All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def dispatch(self, study_id: int, count: int, *, tried: int | None = None) -> dict[int, int]:
        """Marks up to `count` ready tickets as queued, lowest ordinal first; the caller sends their messages next.

        With `tried` so many of them are tickets that have been tried already, and the others are not.
        Returns how often each has been tried.

        The first dispatch starts the study's own clock (its `timeout`).
        """
        if tried is None:
            ready = [_ready("ready", study_id, count)]
        else:
            ready = [
                _ready("tried", study_id, tried, tickets.c.attempt > 0),
                _ready("untried", study_id, count - tried, tickets.c.attempt == 0),
            ]
        statement = (
            update(tickets)
            .where(tickets.c.id.in_(union_all(*(select(some.c.id) for some in ready))))
            .where(tickets.c.state == TicketState.WAITING)
            .values(state=TicketState.QUEUED, queued_at=db_now())
            .returning(tickets.c.id, tickets.c.attempt)
        )
        not_started = _unlocked(studies, studies.c.id == study_id, studies.c.started_at.is_(None))
        clock = update(studies).where(studies.c.id.in_(not_started)).values(started_at=db_now()).cte("clock")
        statement = statement.add_cte(clock)
        return _tries(self._db.rows(statement))

    def requeue(self, ticket_ids: Sequence[int]) -> dict[int, int]:
        """Renews `queued_at` of tickets whose message is lost.

        Returns those still queued, to be sent again, and how often each has been tried already.
        """
        queued = _unlocked(tickets, tickets.c.id.in_(ticket_ids), tickets.c.state == TicketState.QUEUED)
        statement = update(tickets).where(tickets.c.id.in_(queued)).values(queued_at=db_now())
        return _tries(self._db.rows(statement.returning(tickets.c.id, tickets.c.attempt)))

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
            first_waiting(of_study).is_not(None),
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

    def record_declined(self, study_id: int, fault: str) -> None:
        """Keeps why a worker could not start a ticket of the study; another one may.

        A fault that holds the study up stays: it is the reason that people need, and the hold depends on it.
        """
        replaceable = studies.c.fault.is_(None) | studies.c.fault.startswith(DECLINED_FAULT)
        self._keep_fault(study_id, f"{DECLINED_FAULT}{fault}", replaceable)

    def record_fault(self, study_id: int, fault: str | None) -> None:
        """Keeps what is wrong with a study's data, for people; None when it is mended."""
        self._keep_fault(study_id, fault)

    def _keep_fault(self, study_id: int, fault: str | None, *conditions: ColumnElement[bool]) -> None:
        other = _unlocked(studies, studies.c.id == study_id, studies.c.fault.is_distinct_from(fault), *conditions)
        self._db.changed(update(studies).where(studies.c.id.in_(other)).values(fault=fault))


def _tries(rows: Iterable[Any]) -> dict[int, int]:
    """By ticket, the lowest id first: how often it has been tried."""
    return {row.id: row.attempt for row in sorted(rows, key=lambda row: int(row.id))}


def _ready(name: str, study_id: int, count: int, *conditions: ColumnElement[bool]) -> CTE:
    """The first ready tickets of a study, locked; none unless it may start trials.

    A plain subquery may run once per row of a join, and the limit would not hold.
    """
    may_start = exists().where(
        studies.c.id == study_id, studies.c.state == StudyState.RUNNING, studies.c.stop_reason.is_(None)
    )
    # As a subquery the clock is read once, and not for each ticket that the conditions leave out.
    is_due = tickets.c.not_before <= select(db_now()).scalar_subquery()
    waiting = tickets.c.study_id == study_id, tickets.c.state == TicketState.WAITING
    first = (
        select(tickets.c.id).where(*waiting, *conditions, is_due, may_start).order_by(tickets.c.ordinal).limit(count)
    )
    return first.with_for_update(skip_locked=True).cte(name)


def _unlocked(of: Table, *conditions: ColumnElement[bool]) -> Select[tuple[int]]:
    """Locks the rows that meet the conditions, except those that another client has locked: a later tick does these.

    Without that, a client that hangs in the middle of its transaction would stop the work for all studies.
    """
    return select(of.c.id).where(*conditions).with_for_update(skip_locked=True)
