"""Questions about attempts: which run now, where and how the others ran, how they ended. Reads only.

Each question is one statement or two, however many studies there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, and_, cast, func, or_, select, true

from highnoon.shared.domain.metric_history import Curves, curves_of
from highnoon.shared.domain.states import Ending, TicketState, known_ending
from highnoon.shared.store.attempt_records import AttemptPlace, AttemptSummary
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, studies, tickets


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAttempt:
    """A lease and the attempt made under it; ages are on the database's clock."""

    study: str
    attempt: int
    trial_number: int | None
    worker_id: str
    host: str
    pid: int
    age_s: float
    lease_left_s: float
    step: int | None
    rss_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSpan(AttemptPlace):
    """When and where an attempt ran, and how it ended; nothing that it printed."""

    ticket_id: int
    attempt: int
    pid: int
    trial_number: int | None
    started_at: float
    ended_at: float | None
    ending: Ending | None
    cause: str | None
    peak_bytes: int | None
    """As the supervisor measured it, else as the kernel counted it, pages that the fork inherited included.

    None also where the attempt ended before the first reading.
    """
    limit_bytes: int | None


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


class AttemptQueries:
    """All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def running(self, study_id: int | None = None) -> list[RunningAttempt]:
        """Attempts under a lease now, the longest first; of one study when its id is given."""
        columns = {
            "study": studies.c.name,
            "age_s": db_now() - attempts.c.started_at,
            "lease_left_s": tickets.c.lease_expires_at - db_now(),
            **{name: tickets.c[name] for name in ("attempt", "step", "rss_bytes")},
            **{name: attempts.c[name] for name in ("trial_number", "worker_id", "host", "pid")},
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
        return [RunningAttempt(**row._mapping) for row in self._db.rows(statement)]

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
        ((count, oldest_s, least_left_s),) = self._db.rows(statement)
        return LeaseSummary(count=count, oldest_s=oldest_s or 0.0, least_left_s=least_left_s)

    def spans(
        self, study_id: int, *, limit: int | None = None, numbers: Sequence[int] | None = None
    ) -> list[AttemptSpan]:
        """Attempts, oldest first: the newest `limit` of them, or the attempts of some trial numbers."""
        names = [field.name for field in fields(AttemptSpan)]
        columns = [_MEMORY[name] if name in _MEMORY else attempts.c[name] for name in names]
        statement = _of_study(select(*columns), study_id).order_by(attempts.c.started_at.desc()).limit(limit)
        if numbers is not None:
            statement = statement.where(attempts.c.trial_number.in_(numbers))
        # Plain rows: of ten thousand, mappings would take longer than all the rest.
        found = [dict(zip(names, row, strict=True)) for row in self._db.rows(statement)]
        return [AttemptSpan(**{**span, "ending": known_ending(span["ending"])}) for span in reversed(found)]

    def first_start(self, study_id: int) -> float | None:
        """When the study's first attempt began; None before."""
        ((began,),) = self._db.rows(_of_study(select(func.min(attempts.c.started_at)), study_id))
        return None if began is None else float(began)

    def places(self, study_id: int) -> dict[int, AttemptPlace]:
        """By trial number. As plain as it can be: there may be tens of thousands."""
        columns = (attempts.c.trial_number, attempts.c.host, attempts.c.peak_rss_bytes)
        statement = _of_study(select(*columns), study_id).where(attempts.c.trial_number.is_not(None))
        return {number: AttemptPlace(host, peak) for number, host, peak in self._db.rows(statement)}

    def summaries(self, study_id: int) -> list[AttemptSummary]:
        """All attempts, oldest first."""
        columns = [attempts.c[field.name] for field in fields(AttemptSummary)]
        rows = self._db.rows(_of_study(select(*columns), study_id).order_by(attempts.c.started_at))
        return [AttemptSummary(**{**row._mapping, "ending": known_ending(row.ending)}) for row in rows]

    def causes(self, study_id: int) -> list[tuple[str, str | None, int]]:
        """How attempts ended (as it is stored) and why, repeated ones included; the most frequent first."""
        count = func.count().label("count")
        statement = (
            _of_study(select(attempts.c.ending, attempts.c.cause, count), study_id)
            .where(attempts.c.ending.is_not(None))
            .group_by(attempts.c.ending, attempts.c.cause)
            .order_by(count.desc())
        )
        return [(ending, cause, number) for ending, cause, number in self._db.rows(statement)]

    def ended_attempts(self, *, ended_within_s: float) -> list[EndedAttempts]:
        """As `causes`, of every study that is live or ended within so many seconds."""
        recent = [study_id for (study_id,) in self._db.rows(select(studies.c.id).where(ended_within(ended_within_s)))]
        statement = (
            select(studies.c.name, attempts.c.ending, attempts.c.cause, func.count())
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .join(studies, studies.c.id == tickets.c.study_id)
            .where(attempts.c.ending.is_not(None), tickets.c.study_id.in_(recent))
            .group_by(studies.c.id, attempts.c.ending, attempts.c.cause)
        )
        return [
            EndedAttempts(study=name, ending=ending, cause=cause, count=count)
            for name, ending, cause, count in self._db.rows(statement)
        ]

    def metric_history(self, study_id: int, ticket_id: int, number: int) -> Curves:
        """The curves of one trial of a ticket; {} without any. No other question reads them."""
        found = self._db.rows(_of_trial(select(attempts.c.metric_history), study_id, ticket_id, number))
        return curves_of(found[0].metric_history) if found else {}

    def has_metric_history(self, study_id: int, ticket_id: int, number: int) -> bool:
        """Whether one trial of a ticket has curves."""
        has_some = select(attempts.c.metric_history.is_not(None))
        return any(has for (has,) in self._db.rows(_of_trial(has_some, study_id, ticket_id, number)))


_LIMIT_BYTES = cast(attempts.c.memory["limit_bytes"].as_string(), BigInteger)
_PEAK_BYTES = cast(attempts.c.memory["peak_bytes"].as_string(), BigInteger)
_MEMORY = {
    "limit_bytes": _LIMIT_BYTES.label("limit_bytes"),
    "peak_bytes": func.nullif(func.coalesce(_PEAK_BYTES, attempts.c.peak_rss_bytes), 0).label("peak_bytes"),
}
_is_current = and_(attempts.c.ticket_id == tickets.c.id, attempts.c.attempt == tickets.c.attempt)


def _of_study(statement: Select[Any], study_id: int) -> Select[Any]:
    return statement.join(tickets, tickets.c.id == attempts.c.ticket_id).where(tickets.c.study_id == study_id)


def _of_trial(statement: Select[Any], study_id: int, ticket_id: int, number: int) -> Select[Any]:
    """By the primary key of a ticket's attempts: trial numbers have no index."""
    return _of_study(statement, study_id).where(attempts.c.ticket_id == ticket_id, attempts.c.trial_number == number)


def ended_within(seconds: float | None) -> ColumnElement[bool]:
    """Condition on a study: it is live, or ended within so many seconds; always true for None."""
    if seconds is None:
        return true()
    return or_(studies.c.ended_at.is_(None), studies.c.ended_at > db_now() - seconds)
