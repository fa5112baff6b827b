"""What a dashboard looks at: all studies at once, what runs now, attempts without their logs. Reads only.

Each question is one statement, however many studies there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, ColumnElement, and_, cast, func, inspect, select
from sqlalchemy.engine import RowMapping

from highnoon.shared.domain.states import Ending, TicketState
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, leader, meta, studies, tickets
from highnoon.shared.store.studies import StudyCounts, StudyRecord, record_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One study and how far it is; `best_value` of completed tickets."""

    record: StudyRecord
    counts: StudyCounts
    best_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAttempt:
    """A lease and the attempt made under it; ages are on the database's clock."""

    study: str
    ticket_id: int
    ordinal: int
    attempt: int
    trial_number: int | None
    worker_id: str
    host: str
    pid: int
    started_at: float
    age_s: float
    lease_left_s: float
    step: int | None
    rss_bytes: int | None
    cancel_requested: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSpan:
    """When and where an attempt ran, and how it ended; nothing that it printed."""

    ticket_id: int
    attempt: int
    host: str
    pid: int
    trial_number: int | None
    started_at: float
    ended_at: float | None
    ending: Ending | None
    cause: str | None
    peak_rss_bytes: int | None
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt ran and the memory that it took: the part of a span that a list of all trials shows."""

    host: str
    peak_rss_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """Tickets of one resource that are not being run; `oldest_s` since the oldest message was sent."""

    resource: str
    waiting: int
    queued: int
    leased: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """Who leads; `left_s` is negative when nobody has renewed in time."""

    holder: str
    term: int
    left_s: float


@dataclass(slots=True, kw_only=True)
class _Tally:
    by_state: dict[TicketState, int] = field(default_factory=dict)
    by_ending: dict[Ending, int] = field(default_factory=dict)
    attempts: int = 0
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)


class Overview:
    """Statements of people who watch. All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def has_ledger(self) -> bool:
        """Whether a coordinator has ever used this database."""
        with self._db.transaction() as connection:
            return inspect(connection).has_table(meta.name)

    def standings(self) -> list[Standing]:
        """All studies with their counts and best values, oldest first."""
        with self._db.transaction() as connection:
            rows = connection.execute(select(studies).order_by(studies.c.id)).mappings().all()
            counted = connection.execute(
                select(
                    tickets.c.study_id,
                    tickets.c.state,
                    tickets.c.ending,
                    func.count(),
                    func.sum(tickets.c.attempt),
                    func.min(tickets.c.value),
                    func.max(tickets.c.value),
                ).group_by(tickets.c.study_id, tickets.c.state, tickets.c.ending)
            ).all()
        tallies = {row["id"]: _Tally() for row in rows}
        for study_id, state, ending, count, attempted, low, high in counted:
            if study_id in tallies:
                _add(tallies[study_id], state, ending, count, attempted, low, high)
        return [_standing(row, tallies[row["id"]]) for row in rows]

    def pulse(self) -> dict[str, tuple[object, ...]]:
        """By study: a value that changes whenever something about it did that a page shows."""
        statement = (
            select(
                studies.c.name,
                studies.c.state,
                studies.c.ended_at,
                func.count(tickets.c.id),
                func.count().filter(tickets.c.state == TicketState.RUNNING),
                func.count().filter(tickets.c.state == TicketState.CLOSED),
                func.count().filter(tickets.c.state == TicketState.CANCELLED),
                func.sum(tickets.c.attempt),
                func.sum(tickets.c.step).filter(tickets.c.state == TicketState.RUNNING),
            )
            .outerjoin(tickets, tickets.c.study_id == studies.c.id)
            .group_by(studies.c.id)
            .order_by(studies.c.id)
        )
        with self._db.transaction() as connection:
            return {name: tuple(rest) for name, *rest in connection.execute(statement)}

    def running(self, study_id: int | None = None) -> list[RunningAttempt]:
        """Attempts under a lease now, the longest first; of one study when its id is given."""
        statement = (
            select(
                studies.c.name.label("study"),
                tickets.c.id.label("ticket_id"),
                tickets.c.ordinal,
                tickets.c.attempt,
                attempts.c.trial_number,
                attempts.c.worker_id,
                attempts.c.host,
                attempts.c.pid,
                attempts.c.started_at,
                (db_now() - attempts.c.started_at).label("age_s"),
                (tickets.c.lease_expires_at - db_now()).label("lease_left_s"),
                tickets.c.step,
                tickets.c.rss_bytes,
                tickets.c.cancel_requested,
            )
            .join(studies, studies.c.id == tickets.c.study_id)
            .join(attempts, and_(attempts.c.ticket_id == tickets.c.id, attempts.c.attempt == tickets.c.attempt))
            .where(tickets.c.state == TicketState.RUNNING)
            .order_by(attempts.c.started_at)
        )
        if study_id is not None:
            statement = statement.where(tickets.c.study_id == study_id)
        with self._db.transaction() as connection:
            return [RunningAttempt(**row) for row in connection.execute(statement).mappings()]

    def spans(
        self, study_id: int, *, limit: int | None = None, numbers: Sequence[int] | None = None
    ) -> list[AttemptSpan]:
        """Attempts, oldest first: the newest `limit` of them, or those of some trial numbers."""
        names = list(AttemptSpan.__dataclass_fields__)
        limit_bytes = cast(attempts.c.memory["limit_bytes"].as_string(), BigInteger).label("limit_bytes")
        columns = [limit_bytes if name == "limit_bytes" else attempts.c[name] for name in names]
        statement = (
            select(*columns)
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .where(tickets.c.study_id == study_id)
            .order_by(attempts.c.started_at.desc())
        )
        if limit is not None:
            statement = statement.limit(limit)
        if numbers is not None:
            statement = statement.where(attempts.c.trial_number.in_(numbers))
        with self._db.transaction() as connection:
            # Plain rows: of ten thousand, mappings would take longer than all the rest.
            rows = connection.execute(statement).all()
        place = names.index("ending")
        return [
            AttemptSpan(**{**dict(zip(names, row, strict=True)), "ending": Ending(row[place]) if row[place] else None})
            for row in reversed(rows)
        ]

    def places(self, study_id: int, *, since: int = 0) -> dict[int, Place]:
        """Of the trials from number `since` on. As plain as it can be: there may be ten thousands."""
        statement = (
            select(attempts.c.trial_number, attempts.c.host, attempts.c.peak_rss_bytes)
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .where(tickets.c.study_id == study_id, attempts.c.trial_number >= since)
        )
        with self._db.transaction() as connection:
            return {number: Place(host, peak) for number, host, peak in connection.execute(statement)}

    def causes(self, study_id: int) -> list[tuple[Ending, str | None, int]]:
        """How attempts ended and why, lost and repeated ones included; the most frequent first."""
        count = func.count().label("count")
        statement = (
            select(attempts.c.ending, attempts.c.cause, count)
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .where(tickets.c.study_id == study_id, attempts.c.ending.is_not(None))
            .group_by(attempts.c.ending, attempts.c.cause)
            .order_by(count.desc())
        )
        with self._db.transaction() as connection:
            return [(Ending(ending), cause, number) for ending, cause, number in connection.execute(statement)]

    def values(self, study_id: int) -> list[float]:
        """Values of completed tickets in the order in which they were settled."""
        statement = (
            select(tickets.c.value)
            .where(tickets.c.study_id == study_id, tickets.c.ending == Ending.COMPLETED, tickets.c.value.is_not(None))
            .order_by(tickets.c.closed_at)
        )
        with self._db.transaction() as connection:
            return [float(value) for value in connection.scalars(statement)]

    def queues(self) -> list[QueueState]:
        """Tickets by resource: what waits for its turn, what waits in Redis, what runs."""

        def counted(state: TicketState) -> ColumnElement[int]:
            return func.count().filter(tickets.c.state == state)

        statement = (
            select(
                studies.c.queue,
                counted(TicketState.WAITING),
                counted(TicketState.QUEUED),
                counted(TicketState.RUNNING),
                db_now() - func.min(tickets.c.queued_at).filter(tickets.c.state == TicketState.QUEUED),
            )
            .join(studies, studies.c.id == tickets.c.study_id)
            .where(tickets.c.state.in_([TicketState.WAITING, TicketState.QUEUED, TicketState.RUNNING]))
            .group_by(studies.c.queue)
            .order_by(studies.c.queue)
        )
        with self._db.transaction() as connection:
            rows = connection.execute(statement).all()
        return [
            QueueState(resource=queue, waiting=waiting, queued=queued, leased=leased, oldest_s=oldest_s)
            for queue, waiting, queued, leased, oldest_s in rows
        ]

    def lead(self) -> Lead | None:
        """The leader row; None before the first coordinator."""
        statement = select(leader.c.holder, leader.c.term, (leader.c.expires_at - db_now()).label("left_s"))
        with self._db.transaction() as connection:
            row = connection.execute(statement).mappings().first()
        return None if row is None else Lead(**row)


def _add(
    tally: _Tally, state: str, ending: str | None, count: int, attempted: int, low: float | None, high: float | None
) -> None:
    tally.by_state[TicketState(state)] = tally.by_state.get(TicketState(state), 0) + count
    tally.attempts += attempted
    if ending is None:
        return
    tally.by_ending[Ending(ending)] = tally.by_ending.get(Ending(ending), 0) + count
    if Ending(ending) is Ending.COMPLETED and low is not None and high is not None:
        tally.lows.append(low)
        tally.highs.append(high)


def _standing(row: RowMapping, tally: _Tally) -> Standing:
    record = record_of(row)
    best = max(tally.highs, default=None) if record.spec["direction"] == "maximize" else min(tally.lows, default=None)
    counts = StudyCounts(by_state=tally.by_state, by_ending=tally.by_ending, attempts=tally.attempts)
    return Standing(record=record, counts=counts, best_value=best)
