"""One row of the history of attempts, as people read it. Owns no statement."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sqlalchemy.engine import RowMapping

from highnoon.shared.domain.states import Ending, known_ending
from highnoon.shared.domain.trial import MemoryTrace
from highnoon.shared.store.schema import attempts, tickets


@dataclass(frozen=True, slots=True)
class AttemptPlace:
    """Where an attempt ran and the memory that it took: the part that a list of all trials shows."""

    host: str
    peak_rss_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSummary(AttemptPlace):
    """How an attempt ended, too, and at which ticket it was.

    `foreign_ending` is how another program had ended its Optuna trial, where that differs.
    """

    ticket_id: int
    attempt: int
    trial_number: int | None
    ending: Ending | None
    cause: str | None
    message: str | None
    foreign_ending: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord(AttemptSummary):
    """One attempt: who made it, when, how it ended, what it used, and what it last wrote.

    Times are epoch seconds of the database's clock. `code` is the digest of the source tree that it ran.
    """

    ordinal: int
    pid: int
    worker_id: str
    started_at: float
    ended_at: float | None
    exit_status: int | None
    signal: str | None
    log_path: str | None
    log_tail: str | None
    memory: MemoryTrace | None = None
    code: str | None = None
    environment: str | None = None


ATTEMPT_COLUMNS = [(tickets if one.name == "ordinal" else attempts).c[one.name] for one in fields(AttemptRecord)]
"""Without the curves of metrics, which are read for one trial at a time."""


def attempt_record(row: RowMapping) -> AttemptRecord:
    """From a row with these columns of `hn_attempts` and its ticket's ordinal."""
    known = {field.name: row[field.name] for field in fields(AttemptRecord)}
    memory = MemoryTrace.from_json(row["memory"]) if row["memory"] else None
    return AttemptRecord(**{**known, "ending": known_ending(row["ending"]), "memory": memory})
