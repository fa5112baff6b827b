"""What the trials of a study took of memory so far, and what the study says of it. One look before a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from highnoon.shared.domain.states import Ending
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, studies, tickets

_TELLING = (Ending.COMPLETED, Ending.PRUNED, Ending.STOPPED)
"""Endings of trials that got as far as taking what they need. One that failed may have failed at its first line."""

_NEWEST = 50
"""A sampler moves: what it proposed at first is no guide to what comes."""

_REFUSED = "memory_forecast"
"""... and a trial with this cause took nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPeaks:
    """`peaks` in bytes, newest first; `own_peaks` are those of earlier attempts at the ticket asked for."""

    spec: dict[str, Any]
    peaks: tuple[int, ...]
    own_peaks: tuple[int, ...]


class Peaks:
    """Raises ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of_study(self, name: str, ticket_id: int) -> StudyPeaks | None:
        """Of the newest attempts; None without such a study."""
        # As a float: an integer of SQL ends at 2 GB.
        peak = attempts.c.memory["peak_bytes"].as_float().label("peak")
        measured = (
            select(peak, attempts.c.ticket_id)
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .where(attempts.c.memory.is_not(None))
            .order_by(attempts.c.ended_at.desc())
            .limit(_NEWEST)
        )
        telling = attempts.c.ending.in_(_TELLING), attempts.c.cause.is_distinct_from(_REFUSED)
        with self._db.transaction() as connection:
            study = connection.execute(select(studies.c.id, studies.c.spec).where(studies.c.name == name)).first()
            if study is None:
                return None
            rows = connection.execute(measured.where(tickets.c.study_id == study.id, *telling)).all()
            own = connection.execute(measured.where(attempts.c.ticket_id == ticket_id)).all()
        return StudyPeaks(
            spec=study.spec,
            peaks=tuple(int(row.peak) for row in rows),
            own_peaks=tuple(int(row.peak) for row in own),
        )
