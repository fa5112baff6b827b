"""Numbers of the ledger for a monitoring system: counts and ages, of what is alive or ended lately. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import and_, func, or_, select

from highnoon.shared.domain.states import Ending, StudyState, TicketState
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, studies, tickets


@dataclass(slots=True, kw_only=True)
class StudyTally:
    """One study: its tickets by state, attempts beyond the first of each, and its best value."""

    name: str
    maximize: bool
    tickets: dict[TicketState, int] = field(default_factory=dict)
    retries: int = 0
    best_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempts:
    """How many attempts of a study ended alike."""

    study: str
    ending: Ending
    cause: str | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTally:
    """All leases at once. `least_left_s` is None without any, negative for one that ran out."""

    count: int
    oldest_s: float
    least_left_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The ledger in numbers."""

    studies: Mapping[StudyState, int]
    by_study: Sequence[StudyTally]
    attempts: Sequence[EndedAttempts]
    leases: LeaseTally


class Tallies:
    """Four statements, however many studies there are. Raises ServiceUnavailable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def look(self, *, ended_within_s: float) -> Tally:
        """Everything now; studies that ended longer ago than that are only counted."""
        shown = or_(studies.c.ended_at.is_(None), studies.c.ended_at > db_now() - ended_within_s)
        of_study = and_(studies.c.id == tickets.c.study_id, shown)
        completed = tickets.c.ending == Ending.COMPLETED
        by_state = select(studies.c.state, func.count()).group_by(studies.c.state)
        by_ticket = (
            select(
                studies.c.name,
                studies.c.spec["direction"].as_string(),
                tickets.c.state,
                func.count(),
                func.sum(tickets.c.attempt) - func.count().filter(tickets.c.attempt > 0),
                func.min(tickets.c.value).filter(completed),
                func.max(tickets.c.value).filter(completed),
            )
            .join(studies, of_study)
            .group_by(studies.c.id, tickets.c.state)
            .order_by(studies.c.id, tickets.c.state)
        )
        ended = (
            select(studies.c.name, attempts.c.ending, attempts.c.cause, func.count())
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .join(studies, of_study)
            .where(attempts.c.ending.is_not(None))
            .group_by(studies.c.id, attempts.c.ending, attempts.c.cause)
        )
        leased = (
            select(
                func.count(),
                db_now() - func.min(attempts.c.started_at),
                func.min(tickets.c.lease_expires_at) - db_now(),
            )
            .join(attempts, and_(attempts.c.ticket_id == tickets.c.id, attempts.c.attempt == tickets.c.attempt))
            .where(tickets.c.state == TicketState.RUNNING)
        )
        with self._db.transaction() as connection:
            counted = {StudyState(state): count for state, count in connection.execute(by_state)}
            tallies: dict[str, StudyTally] = {}
            for name, direction, state, count, retries, low, high in connection.execute(by_ticket):
                tally = tallies.setdefault(name, StudyTally(name=name, maximize=direction == "maximize"))
                _add(tally, TicketState(state), count, retries, low, high)
            endings = [
                EndedAttempts(study=name, ending=Ending(ending), cause=cause, count=count)
                for name, ending, cause, count in connection.execute(ended)
            ]
            count, oldest_s, least_left_s = connection.execute(leased).one()
        leases = LeaseTally(count=count, oldest_s=oldest_s or 0.0, least_left_s=least_left_s)
        return Tally(studies=counted, by_study=list(tallies.values()), attempts=endings, leases=leases)


def _add(
    tally: StudyTally, state: TicketState, count: int, retries: int, low: float | None, high: float | None
) -> None:
    tally.tickets[state] = count
    tally.retries += retries
    found = high if tally.maximize else low
    if found is not None:
        known = [found, *([] if tally.best_value is None else [tally.best_value])]
        tally.best_value = max(known) if tally.maximize else min(known)
