"""A study of the ledger and its progress, as values. Owns no statement.

A specification is the JSON of a StudySpec, which is not interpreted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy.engine import RowMapping

from highnoon.shared.domain.states import Ending, StudyState, TicketState


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One study as the ledger holds it; times are epoch seconds on the database's clock.

    `started_at` is when its `timeout` began to count: the first dispatch since it was submitted or went on last.
    """

    id: int
    name: str
    state: StudyState
    stop_reason: str | None
    queue: str
    spec: dict[str, Any]
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    spec_version: int = 1
    optuna_study_id: int | None = None
    fault: str | None = None

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
        return self.by_state.get(TicketState.RUNNING, 0)


def record_of(row: RowMapping) -> StudyRecord:
    """A row of the table, as the value the rest of the system knows; columns of a newer version are ignored."""
    known = {field.name: row[field.name] for field in fields(StudyRecord)}
    # Of a study with broken data: what lists all studies must list it as well.
    spec = row["spec"] if isinstance(row["spec"], dict) else {}
    return StudyRecord(**{**known, "spec": spec, "state": StudyState(row["state"])})
