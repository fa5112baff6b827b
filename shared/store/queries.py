"""Aggregates of the ledger: for the dashboard, the command line and the metrics. Reads only.

Each question is one statement in one round trip, however many studies there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Executable, Select, and_, cast, func, inspect, or_, select, text, true
from sqlalchemy.engine import RowMapping
from typing_extensions import Self

from highnoon.shared.domain.states import Ending, StudyState, TicketState, known_ending
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, leader, meta, studies, tickets
from highnoon.shared.store.studies import Studies
from highnoon.shared.store.study_records import StudyCounts, StudyRecord, record_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProgress:
    """One study and how far it is; `best_value` of completed tickets, `retries` beyond the first attempt of each."""

    record: StudyRecord
    counts: StudyCounts
    best_value: float | None
    retries: int = 0

    @classmethod
    def of(cls, record: StudyRecord, studies: Studies) -> Self:
        """Reads how far the study is now, without its retries."""
        best = studies.best_value(record.id, maximize=record.spec.get("direction") == "maximize")
        return cls(record=record, counts=studies.counts(record.id), best_value=best)


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
    peak_bytes: int | None
    """As the supervisor measured it, else as the kernel counted it, pages that the fork inherited included."""
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class AttemptPlace:
    """Where an attempt ran and the memory that it took: the part of a span that a list of all trials shows."""

    host: str
    peak_rss_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempts:
    """How many attempts of a study ended alike."""

    study: str
    ending: str
    """As it is stored: a newer version may have others."""
    cause: str | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSummary:
    """All leases at once. `least_left_s` is None without any, negative for one that ran out."""

    count: int
    oldest_s: float
    least_left_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """Open tickets of one resource; `oldest_s` since the oldest message was sent."""

    resource: str
    waiting: int
    queued: int
    running: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderState:
    """The coordinator that leads; `left_s` is negative when none has renewed in time."""

    holder: str
    term: int
    left_s: float


@dataclass(slots=True, kw_only=True)
class _Counted:
    by_state: Counter[TicketState] = field(default_factory=Counter)
    by_ending: Counter[Ending] = field(default_factory=Counter)
    attempts: int = 0
    started: int = 0
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)


class LedgerQueries:
    """All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def has_ledger(self) -> bool:
        """Whether a coordinator has ever used this database."""
        with self._db.transaction() as connection:
            return inspect(connection).has_table(meta.name)

    def has_others(self) -> bool:
        """Whether Optuna has studies in this database that no coordinator runs."""
        statement = text("select exists(select 1 from studies where study_name not in (select name from hn_studies))")
        ((found,),) = self._rows(statement)
        return bool(found)

    def studies_by_state(self) -> dict[StudyState, int]:
        """How many studies are in each state."""
        statement = select(studies.c.state, func.count()).group_by(studies.c.state)
        return {StudyState(state): count for state, count in self._rows(statement)}

    def progress(self, *, ended_within_s: float | None = None) -> list[StudyProgress]:
        """Studies with their counts and best values, oldest first; all, or without those that ended longer ago."""
        shown = _ended_within(ended_within_s)
        counts = (
            select(
                tickets.c.study_id,
                tickets.c.state,
                tickets.c.ending,
                func.count(),
                func.sum(tickets.c.attempt),
                func.count().filter(tickets.c.attempt > 0),
                func.min(tickets.c.value),
                func.max(tickets.c.value),
            )
            .join(studies, and_(studies.c.id == tickets.c.study_id, shown))
            .group_by(tickets.c.study_id, tickets.c.state, tickets.c.ending)
        )
        with self._db.transaction() as connection:
            rows = connection.execute(select(studies).where(shown).order_by(studies.c.id)).mappings().all()
            counted: dict[int, _Counted] = {row["id"]: _Counted() for row in rows}
            for study_id, state, stored, count, attempted, started, low, high in connection.execute(counts):
                if (known := counted.get(study_id)) is None:  # submitted in between
                    continue
                known.by_state[TicketState(state)] += count
                known.attempts += attempted
                known.started += started
                if (ending := known_ending(stored)) is not None:
                    known.by_ending[ending] += count
                if ending is Ending.COMPLETED and low is not None:
                    known.lows.append(low)
                    known.highs.append(high)
        return [_progress(row, counted[row["id"]]) for row in rows]

    def change_marks(self) -> dict[str, tuple[object, ...]]:
        """By study: a value that changes whenever something about it did that a page shows."""
        runs = tickets.c.state == TicketState.RUNNING
        statement = (
            select(
                studies.c.name,
                studies.c.state,
                studies.c.ended_at,
                studies.c.fault,
                func.count(tickets.c.id),
                func.count().filter(runs),
                func.count().filter(tickets.c.state == TicketState.CLOSED),
                func.count().filter(tickets.c.state == TicketState.CANCELLED),
                func.sum(tickets.c.attempt),
                func.sum(tickets.c.step).filter(runs),
            )
            .outerjoin(tickets, tickets.c.study_id == studies.c.id)
            .group_by(studies.c.id)
            .order_by(studies.c.id)
        )
        return {name: tuple(marks) for name, *marks in self._rows(statement)}

    def running(self, study_id: int | None = None) -> list[RunningAttempt]:
        """Attempts under a lease now, the longest first; of one study when its id is given."""
        columns = {
            "study": studies.c.name,
            "ticket_id": tickets.c.id,
            "age_s": db_now() - attempts.c.started_at,
            "lease_left_s": tickets.c.lease_expires_at - db_now(),
            **{name: tickets.c[name] for name in ("ordinal", "attempt", "step", "rss_bytes", "cancel_requested")},
            **{name: attempts.c[name] for name in ("trial_number", "worker_id", "host", "pid", "started_at")},
        }
        statement = (
            select(*[column.label(name) for name, column in columns.items()])
            .join(studies, studies.c.id == tickets.c.study_id)
            .join(attempts, _is_current)
            .where(tickets.c.state == TicketState.RUNNING)
            .order_by(attempts.c.started_at)
        )
        if study_id is not None:
            statement = statement.where(tickets.c.study_id == study_id)
        return [RunningAttempt(**row._mapping) for row in self._rows(statement)]

    def leases(self) -> LeaseSummary:
        """How many leases there are, the oldest, and the one that runs out first."""
        statement = (
            select(
                func.count(),
                db_now() - func.min(attempts.c.started_at),
                func.min(tickets.c.lease_expires_at) - db_now(),
            )
            .join(attempts, _is_current)
            .where(tickets.c.state == TicketState.RUNNING)
        )
        ((count, oldest_s, least_left_s),) = self._rows(statement)
        return LeaseSummary(count=count, oldest_s=oldest_s or 0.0, least_left_s=least_left_s)

    def spans(
        self, study_id: int, *, limit: int | None = None, numbers: Sequence[int] | None = None
    ) -> list[AttemptSpan]:
        """Attempts, oldest first: the newest `limit` of them, or the attempts of some trial numbers."""
        names = list(AttemptSpan.__dataclass_fields__)
        columns = [_MEMORY[name] if name in _MEMORY else attempts.c[name] for name in names]
        statement = _of_study(select(*columns), study_id).order_by(attempts.c.started_at.desc()).limit(limit)
        if numbers is not None:
            statement = statement.where(attempts.c.trial_number.in_(numbers))
        # Plain rows: of ten thousand, mappings would take longer than all the rest.
        found = [dict(zip(names, row, strict=True)) for row in self._rows(statement)]
        return [AttemptSpan(**{**span, "ending": known_ending(span["ending"])}) for span in reversed(found)]

    def places(self, study_id: int, *, since: int = 0) -> dict[int, AttemptPlace]:
        """Of the trials from number `since` on. As plain as it can be: there may be tens of thousands."""
        columns = (attempts.c.trial_number, attempts.c.host, attempts.c.peak_rss_bytes)
        statement = _of_study(select(*columns), study_id).where(attempts.c.trial_number >= since)
        return {number: AttemptPlace(host, peak) for number, host, peak in self._rows(statement)}

    def causes(self, study_id: int) -> list[tuple[str, str | None, int]]:
        """How attempts ended (as it is stored) and why, repeated ones included; the most frequent first."""
        count = func.count().label("count")
        statement = (
            _of_study(select(attempts.c.ending, attempts.c.cause, count), study_id)
            .where(attempts.c.ending.is_not(None))
            .group_by(attempts.c.ending, attempts.c.cause)
            .order_by(count.desc())
        )
        return [(ending, cause, number) for ending, cause, number in self._rows(statement)]

    def ended_attempts(self, *, ended_within_s: float) -> list[EndedAttempts]:
        """As `causes`, of every study that is live or ended within so many seconds."""
        statement = (
            select(studies.c.name, attempts.c.ending, attempts.c.cause, func.count())
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .join(studies, and_(studies.c.id == tickets.c.study_id, _ended_within(ended_within_s)))
            .where(attempts.c.ending.is_not(None))
            .group_by(studies.c.id, attempts.c.ending, attempts.c.cause)
        )
        return [
            EndedAttempts(study=name, ending=ending, cause=cause, count=count)
            for name, ending, cause, count in self._rows(statement)
        ]

    def values(self, study_id: int) -> list[float]:
        """Values of completed tickets in the order in which they were closed."""
        statement = (
            select(tickets.c.value)
            .where(tickets.c.study_id == study_id, tickets.c.ending == Ending.COMPLETED, tickets.c.value.is_not(None))
            .order_by(tickets.c.closed_at)
        )
        return [float(row.value) for row in self._rows(statement)]

    def queues(self) -> list[QueueState]:
        """Open tickets by resource: what waits, what was sent to Redis, what runs."""
        counts = {
            str(state): func.count().filter(tickets.c.state == state)
            for state in (TicketState.WAITING, TicketState.QUEUED, TicketState.RUNNING)
        }
        sent_at = func.min(tickets.c.queued_at).filter(tickets.c.state == TicketState.QUEUED)
        columns = {"resource": studies.c.queue, **counts, "oldest_s": db_now() - sent_at}
        statement = (
            select(*[column.label(name) for name, column in columns.items()])
            .join(studies, studies.c.id == tickets.c.study_id)
            .where(tickets.c.state.in_(list(counts)))
            .group_by(studies.c.queue)
            .order_by(studies.c.queue)
        )
        return [QueueState(**row._mapping) for row in self._rows(statement)]

    def leader(self) -> LeaderState | None:
        """The leader row; None before the first coordinator."""
        left = (leader.c.expires_at - db_now()).label("left_s")
        rows = self._rows(select(leader.c.holder, leader.c.term, left))
        return LeaderState(**rows[0]._mapping) if rows else None

    def _rows(self, statement: Executable) -> Sequence[Any]:
        return self._db.rows(statement)


_LIMIT_BYTES = cast(attempts.c.memory["limit_bytes"].as_string(), BigInteger)
_PEAK_BYTES = cast(attempts.c.memory["peak_bytes"].as_string(), BigInteger)
_MEMORY = {
    "limit_bytes": _LIMIT_BYTES.label("limit_bytes"),
    "peak_bytes": func.coalesce(_PEAK_BYTES, attempts.c.peak_rss_bytes).label("peak_bytes"),
}
_is_current = and_(attempts.c.ticket_id == tickets.c.id, attempts.c.attempt == tickets.c.attempt)


def _of_study(statement: Select[Any], study_id: int) -> Select[Any]:
    return statement.join(tickets, tickets.c.id == attempts.c.ticket_id).where(tickets.c.study_id == study_id)


def _ended_within(seconds: float | None) -> ColumnElement[bool]:
    if seconds is None:
        return true()
    return or_(studies.c.ended_at.is_(None), studies.c.ended_at > db_now() - seconds)


def _progress(row: RowMapping, counted: _Counted) -> StudyProgress:
    record = record_of(row)
    is_maximized = record.spec.get("direction") == "maximize"
    best = max(counted.highs, default=None) if is_maximized else min(counted.lows, default=None)
    counts = StudyCounts(by_state=counted.by_state, by_ending=counted.by_ending, attempts=counted.attempts)
    return StudyProgress(record=record, counts=counts, best_value=best, retries=counted.attempts - counted.started)
