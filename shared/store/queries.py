"""Aggregates of the ledger: for the dashboard, the command line and the metrics; attempts are in `attempt_queries`.

Reads only. Each question is one statement or two, however many studies there are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func, inspect, literal_column, select, text
from sqlalchemy.engine import RowMapping

from highnoon.shared.domain.states import Ending, StudyState, TicketState, known_ending
from highnoon.shared.store.attempt_queries import AttemptQueries, ended_within
from highnoon.shared.store.database import Database
from highnoon.shared.store.joined_trials import lowest_and_highest
from highnoon.shared.store.schema import db_now, leader, meta, studies, tickets
from highnoon.shared.store.study_records import StudyCounts, StudyRecord, record_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProgress:
    """One study and how far it is; `best_value` of all its trials, also joined ones, `retries` of its tickets."""

    record: StudyRecord
    counts: StudyCounts
    best_value: float | None
    retries: int = 0


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
        self.attempts = AttemptQueries(database)

    def has_ledger(self) -> bool:
        """Whether a coordinator has ever used this database."""
        with self._db.transaction() as connection:
            return inspect(connection).has_table(meta.name)

    def has_others(self) -> bool:
        """Whether Optuna has studies in this database that no coordinator runs."""
        statement = text("select exists(select 1 from studies where study_name not in (select name from hn_studies))")
        ((found,),) = self._db.rows(statement)
        return bool(found)

    def studies_by_state(self) -> dict[StudyState, int]:
        """How many studies are in each state."""
        statement = select(studies.c.state, func.count()).group_by(studies.c.state)
        return {StudyState(state): count for state, count in self._db.rows(statement)}

    def progress(self, *, ended_within_s: float | None = None) -> list[StudyProgress]:
        """Studies with their counts and best values, oldest first; all, or without those that ended longer ago."""
        return self._progress_where(ended_within(ended_within_s))

    def progress_of(self, record: StudyRecord) -> StudyProgress:
        """The study as it is now; without counts where it was deleted meanwhile."""
        found = self._progress_where(studies.c.id == record.id)
        return found[0] if found else StudyProgress(record=record, counts=StudyCounts(), best_value=None)

    def _progress_where(self, condition: ColumnElement[bool]) -> list[StudyProgress]:
        counts = select(
            tickets.c.study_id,
            tickets.c.state,
            tickets.c.ending,
            func.count(),
            func.sum(tickets.c.attempt),
            func.count().filter(tickets.c.attempt > 0),
            func.min(tickets.c.value),
            func.max(tickets.c.value),
        ).group_by(tickets.c.study_id, tickets.c.state, tickets.c.ending)
        shown = select(studies).where(condition).order_by(studies.c.id)
        with self._db.transaction() as connection:
            rows = connection.execute(shown).mappings().all()
            counted: dict[int, _Counted] = {row["id"]: _Counted() for row in rows}
            # By their ids: joined with the studies all tickets would be read, since the time is another one for each.
            of_shown = counts.where(tickets.c.study_id.in_(list(counted)))
            for study_id, state, stored, count, attempted, started, low, high in connection.execute(of_shown):
                known = counted[study_id]
                known.by_state[TicketState(state)] += count
                known.attempts += attempted
                known.started += started
                if (ending := known_ending(stored)) is not None:
                    known.by_ending[ending] += count
                if ending is Ending.COMPLETED and low is not None:
                    known.lows.append(low)
                    known.highs.append(high)
            ours = {one: (known.attempts, known.by_ending[Ending.COMPLETED]) for one, known in counted.items()}
            for study_id, (low, high) in lowest_and_highest(connection, ours).items():
                counted[study_id].lows.append(low)
                counted[study_id].highs.append(high)
        return [_progress(row, counted[row["id"]]) for row in rows]

    def change_marks(self) -> dict[str, tuple[object, ...]]:
        """By study: a value that changes whenever something about it did that a page shows.

        Asked every second: tickets of studies that ended an hour ago are not counted, since a change begins them again.
        Of the study's own row and of its notes and tags it takes PostgreSQL's `xmin`, which each write changes.
        """
        runs = tickets.c.state == TicketState.RUNNING
        known = [studies.c.name, studies.c.id, studies.c.optuna_study_id, _WRITTEN]
        counts = select(
            tickets.c.study_id,
            func.count(),
            func.count().filter(runs),
            func.count().filter(tickets.c.state == TicketState.CLOSED),
            func.count().filter(tickets.c.state == TicketState.CANCELLED),
            func.sum(tickets.c.attempt),
            func.sum(tickets.c.step).filter(runs),
        ).group_by(tickets.c.study_id)
        with self._db.transaction() as connection:
            rows = connection.execute(select(*known, ended_within(3600.0)).order_by(studies.c.id)).all()
            notes = {study_id: tuple(marks) for study_id, *marks in connection.execute(_NOTES)}
            recent = [study_id for _, study_id, *_, is_recent in rows if is_recent]
            of_recent = connection.execute(counts.where(tickets.c.study_id.in_(recent)))
            counted = {study_id: tuple(marks) for study_id, *marks in of_recent}
        return {
            row.name: (row.id, row.written, notes.get(row.optuna_study_id), *counted.get(row.id, ())) for row in rows
        }

    def values(self, study_id: int) -> list[float]:
        """Values of completed tickets in the order in which they were closed."""
        statement = (
            select(tickets.c.value)
            .where(tickets.c.study_id == study_id, tickets.c.ending == Ending.COMPLETED, tickets.c.value.is_not(None))
            .order_by(tickets.c.closed_at)
        )
        return [float(row.value) for row in self._db.rows(statement)]

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
        return [QueueState(**row._mapping) for row in self._db.rows(statement)]

    def leader(self) -> LeaderState | None:
        """The leader row; None before the first coordinator."""
        left = (leader.c.expires_at - db_now()).label("left_s")
        rows = self._db.rows(select(leader.c.holder, leader.c.term, left))
        return LeaderState(**rows[0]._mapping) if rows else None

    def is_led(self) -> bool:
        """Whether a coordinator leads now."""
        state = self.leader()
        return state is not None and state.left_s > 0


_WRITTEN: ColumnElement[str] = literal_column("hn_studies.xmin::text").label("written")
_NOTES = text(
    "select study_id, count(*), sum(xmin::text::bigint) from study_system_attributes"
    " where key like 'dashboard:%note%' or key like 'highnoon:%tags' group by study_id"
)
"""By Optuna's study: how many attributes its notes and tags are, and a number that each write of them changes."""


def _progress(row: RowMapping, counted: _Counted) -> StudyProgress:
    record = record_of(row)
    is_maximized = record.spec.get("direction") == "maximize"
    best = max(counted.highs, default=None) if is_maximized else min(counted.lows, default=None)
    counts = StudyCounts(by_state=counted.by_state, by_ending=counted.by_ending, attempts=counted.attempts)
    return StudyProgress(record=record, counts=counts, best_value=best, retries=counted.attempts - counted.started)
