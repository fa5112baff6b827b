"""What people do to studies (submit, pause, resume, cancel, retry) and what they may read of them.

A study's specification is stored as the JSON of its StudySpec; this file does not look into it beyond what the
caller passes in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.engine import RowMapping

from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.domain.states import Ending, StudyState, TicketState
from highnoon.shared.store.attempt_records import AttemptRecord, attempt_record
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, studies, tickets


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One study as the ledger holds it; times are epoch seconds on the database's clock."""

    id: int
    name: str
    state: StudyState
    stop_reason: str | None
    queue: str
    spec: dict[str, Any]
    submitted_at: float
    started_at: float | None
    ended_at: float | None

    @property
    def is_over(self) -> bool:
        """True when nothing of it will run again unless a person asks."""
        return self.state in (StudyState.FINISHED, StudyState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCounts:
    """Tickets by state, and closed ones by how their last attempt ended."""

    by_state: Mapping[TicketState, int] = field(default_factory=dict)
    by_ending: Mapping[Ending, int] = field(default_factory=dict)
    attempts: int = 0

    @property
    def total(self) -> int:
        """All tickets ever made for the study."""
        return sum(self.by_state.values())

    @property
    def closed(self) -> int:
        """Trials that count for n_trials."""
        return self.by_state.get(TicketState.CLOSED, 0)

    @property
    def running(self) -> int:
        """Attempts under way now."""
        return self.by_state.get(TicketState.LEASED, 0)


class Studies:
    """Statements of people. Look-ups by name raise UnknownStudy; all raise ServiceUnavailable when unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, name: str) -> StudyRecord | None:
        """The study of that name, or None."""
        with self._db.transaction() as connection:
            row = connection.execute(select(studies).where(studies.c.name == name)).mappings().first()
        return None if row is None else record_of(row)

    def get(self, name: str) -> StudyRecord:
        """The study of that name. Raises UnknownStudy."""
        record = self.find(name)
        if record is None:
            raise UnknownStudy(f"no study named {name!r} in this ledger")
        return record

    def all(self) -> list[StudyRecord]:
        """All studies, oldest first."""
        with self._db.transaction() as connection:
            rows = connection.execute(select(studies).order_by(studies.c.id)).mappings().all()
        return [record_of(row) for row in rows]

    def create(self, name: str, spec: Mapping[str, Any], *, queue: str, n_trials: int) -> StudyRecord:
        """A running study with `n_trials` waiting tickets, in one transaction.

        Raises IntegrityError when the name is taken (two submitted at once): look it up and join it.
        """
        with self._db.transaction() as connection:
            row = (
                connection.execute(
                    insert(studies)
                    .values(name=name, spec=dict(spec), state=StudyState.RUNNING, queue=queue, submitted_at=db_now())
                    .returning(studies)
                )
                .mappings()
                .one()
            )
            _add_tickets(connection, row["id"], first=0, count=n_trials)
        return record_of(row)

    def extend(self, study_id: int, spec: Mapping[str, Any], *, n_trials: int) -> int:
        """Makes it a live study of at least `n_trials` tickets; returns how many it gained. A paused one stays paused.

        Tickets that a limit had dropped come first: an ordinal may be a grid's point, and no other has it.
        """
        with self._db.transaction() as connection:
            # The study's row is the lock: two that extend at once must not both add.
            connection.execute(select(studies.c.id).where(studies.c.id == study_id).with_for_update())
            have, last = connection.execute(
                select(
                    func.count().filter(tickets.c.state != TicketState.CANCELLED),
                    func.coalesce(func.max(tickets.c.ordinal), -1),
                ).where(tickets.c.study_id == study_id)
            ).one()
            missing = max(0, n_trials - int(have))
            revived = _revive_tickets(connection, study_id, at_most=missing)
            _add_tickets(connection, study_id, first=int(last) + 1, count=missing - revived)
            connection.execute(update(studies).where(studies.c.id == study_id).values(spec=dict(spec), **_live_again()))
        return missing

    def pause(self, study_id: int) -> bool:
        """No new attempts; running ones end by themselves. False unless it was running."""
        return self._change(study_id, (StudyState.RUNNING,), StudyState.PAUSED)

    def resume(self, study_id: int) -> bool:
        """Running again. False unless it was paused."""
        return self._change(study_id, (StudyState.PAUSED,), StudyState.RUNNING)

    def cancel(self, study_id: int) -> bool:
        """Gives up what has not begun and asks holders to stop. False when it is over already."""
        with self._db.transaction() as connection:
            changed = connection.execute(
                update(studies)
                .where(studies.c.id == study_id, studies.c.state.in_([StudyState.RUNNING, StudyState.PAUSED]))
                .values(state=StudyState.CANCELLING, stop_reason="cancelled")
            ).rowcount
            if changed:
                request_cancel(connection, study_id)
        return bool(changed)

    def retry(self, study_id: int, *, endings: tuple[Ending, ...], numbers: tuple[int, ...] = ()) -> int:
        """Gives closed tickets of these endings (or of these trial numbers) another go; returns how many.

        The study lives again, but a paused one stays paused.
        """
        chosen = [tickets.c.ending.in_(endings)]
        if numbers:
            chosen.append(tickets.c.trial_number.in_(numbers))
        with self._db.transaction() as connection:
            count = connection.execute(
                update(tickets)
                .where(tickets.c.study_id == study_id, tickets.c.state == TicketState.CLOSED, *chosen)
                .values(
                    state=TicketState.WAITING,
                    losses=0,
                    errors=0,
                    ending=None,
                    value=None,
                    outcome=None,
                    settled_at=None,
                    closed_at=None,
                    worker_id=None,
                    queued_at=None,
                )
            ).rowcount
            if count:
                connection.execute(update(studies).where(studies.c.id == study_id).values(**_live_again()))
        return count

    def delete(self, study_id: int) -> None:
        """Removes the study with its tickets and attempts. Optuna's study is not ours to remove."""
        with self._db.transaction() as connection:
            connection.execute(delete(studies).where(studies.c.id == study_id))

    def counts(self, study_id: int) -> StudyCounts:
        """How far it is, by one look."""
        with self._db.transaction() as connection:
            rows = connection.execute(
                select(tickets.c.state, tickets.c.ending, func.count(), func.sum(tickets.c.attempt))
                .where(tickets.c.study_id == study_id)
                .group_by(tickets.c.state, tickets.c.ending)
            ).all()
        by_state: dict[TicketState, int] = {}
        by_ending: dict[Ending, int] = {}
        for state, ending, count, _ in rows:
            by_state[TicketState(state)] = by_state.get(TicketState(state), 0) + count
            if ending is not None:
                by_ending[Ending(ending)] = by_ending.get(Ending(ending), 0) + count
        return StudyCounts(by_state=by_state, by_ending=by_ending, attempts=sum(row[3] for row in rows))

    def best_value(self, study_id: int, *, maximize: bool) -> float | None:
        """The best value of a completed ticket; None before the first."""
        best = func.max(tickets.c.value) if maximize else func.min(tickets.c.value)
        completed = and_(tickets.c.study_id == study_id, tickets.c.ending == Ending.COMPLETED)
        with self._db.transaction() as connection:
            value = connection.scalar(select(best).where(completed))
        return None if value is None else float(value)

    def attempts(
        self,
        study_id: int,
        *,
        trial_number: int | None = None,
        ticket_id: int | None = None,
        endings: Collection[Ending] | None = None,
    ) -> list[AttemptRecord]:
        """The history of attempts, oldest first; of one trial or ticket, or that ended so, when that is given."""
        statement = (
            select(attempts, tickets.c.ordinal)
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .where(tickets.c.study_id == study_id)
            .order_by(attempts.c.started_at)
        )
        if trial_number is not None:
            statement = statement.where(attempts.c.trial_number == trial_number)
        if ticket_id is not None:
            statement = statement.where(attempts.c.ticket_id == ticket_id)
        if endings is not None:
            statement = statement.where(attempts.c.ending.in_(endings))
        with self._db.transaction() as connection:
            rows = connection.execute(statement).mappings().all()
        return [attempt_record(row) for row in rows]

    def clock(self) -> float:
        """The database's now: what the times of a StudyRecord are to be compared with."""
        with self._db.transaction() as connection:
            return float(connection.execute(select(db_now())).scalar_one())

    def _change(self, study_id: int, before: tuple[StudyState, ...], after: StudyState) -> bool:
        statement = update(studies).where(studies.c.id == study_id, studies.c.state.in_(before)).values(state=after)
        with self._db.transaction() as connection:
            return connection.execute(statement).rowcount == 1


def request_cancel(connection: Connection, study_id: int) -> None:
    """What has not begun is cancelled at once; what is leased hears of it by its next renewal."""
    of_study = tickets.c.study_id == study_id
    begun = tickets.c.state == TicketState.LEASED
    connection.execute(
        update(tickets)
        .where(of_study, or_(begun, tickets.c.state.in_([TicketState.WAITING, TicketState.QUEUED])))
        .values(
            state=case((begun, TicketState.LEASED.value), else_=TicketState.CANCELLED.value),
            cancel_requested=begun,
        )
    )


def _live_again() -> dict[str, Any]:
    """No limit ends it until one is met anew: what was over starts its clock with its next dispatch."""
    was_over = studies.c.state.in_([StudyState.FINISHED, StudyState.CANCELLED])
    return {
        "state": case((studies.c.state == StudyState.PAUSED, StudyState.PAUSED.value), else_=StudyState.RUNNING.value),
        "stop_reason": None,
        "started_at": case((was_over, None), else_=studies.c.started_at),
        "ended_at": None,
    }


def _revive_tickets(connection: Connection, study_id: int, *, at_most: int) -> int:
    dropped = (
        select(tickets.c.id)
        .where(tickets.c.study_id == study_id, tickets.c.state == TicketState.CANCELLED)
        .order_by(tickets.c.ordinal)
        .limit(at_most)
    )
    return connection.execute(
        update(tickets)
        .where(tickets.c.id.in_(dropped))
        .values(state=TicketState.WAITING, cancel_requested=False, queued_at=None)
    ).rowcount


def _add_tickets(connection: Connection, study_id: int, *, first: int, count: int) -> None:
    if count:
        rows = [{"study_id": study_id, "ordinal": first + offset} for offset in range(count)]
        connection.execute(insert(tickets), rows)


def record_of(row: RowMapping) -> StudyRecord:
    """A row of the table, as the value the rest of the system knows."""
    return StudyRecord(
        id=row["id"],
        name=row["name"],
        state=StudyState(row["state"]),
        stop_reason=row["stop_reason"],
        queue=row["queue"],
        spec=row["spec"],
        submitted_at=row["submitted_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
