"""What nodes and the coordinator decide by: failures of nodes, memory of trials, whether there is work. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from sqlalchemy import and_, func, or_, select

from highnoon.shared.domain.states import WENT_WRONG, Cause, Ending, StudyState, TicketState
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, studies, tickets, workers

LOOK_BACK_S = 86_400.0
"""Older attempts are not counted: the node may have changed since."""

MOST = 20
"""Of the newest attempts of each node."""

NEWEST_ATTEMPTS = 200
"""Of each node so many are read to find them: the rest may be of studies that are over."""

_UNINFORMATIVE = frozenset({Ending.RELEASED, Ending.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Streak:
    """A node that failed at the newest `length` tickets that it tried; `causes` counts why.

    `others_ended` and `others_failed`: the newest attempts of other nodes at the same studies.
    """

    worker_id: str
    length: int
    causes: Mapping[str, int] = field(default_factory=dict)
    others_ended: int = 0
    others_failed: int = 0


@dataclass(frozen=True, slots=True)
class _Ended:
    ticket_id: int
    study_id: int
    ending: Ending
    cause: str | None


_MEASURED = (Ending.COMPLETED, Ending.PRUNED, Ending.STOPPED)
"""Endings of trials that took the memory that they need. One that failed may have failed at its first line."""

_NEWEST_PEAKS = 50
"""A sampler moves: what it proposed at first is no guide to what comes."""

_NEWEST_TICKETS = 2 * _NEWEST_PEAKS
"""Of which some may have failed. Attempts have no index by their end: the tickets lead to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPeaks:
    """`peaks` in bytes, newest first; `own_peaks` are the peaks of earlier attempts at the ticket asked for."""

    peaks: tuple[int, ...]
    own_peaks: tuple[int, ...]


class NodeQueries:
    """All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def has_work(self, resources: Sequence[str]) -> bool:
        """Whether anything runs for these resources, or waits in a study that is neither paused nor about to end."""
        waits = and_(
            tickets.c.state.in_([TicketState.WAITING, TicketState.QUEUED]),
            studies.c.state == StudyState.RUNNING,
            studies.c.stop_reason.is_(None),
        )
        statement = (
            select(tickets.c.id)
            .join(studies, studies.c.id == tickets.c.study_id)
            .where(studies.c.queue.in_(resources), or_(tickets.c.state == TicketState.RUNNING, waits))
            .limit(1)
        )
        return bool(self._db.rows(statement))

    def memory_peaks(self, study_id: int, ticket_id: int) -> StudyPeaks:
        """The memory of the study's newest trials, and of a ticket's attempts."""
        # As a float: an integer of SQL ends at 2 GB.
        peak = attempts.c.memory["peak_bytes"].as_float().label("peak")
        measured = (
            select(peak, attempts.c.ticket_id)
            .where(attempts.c.memory.is_not(None))
            .order_by(attempts.c.ended_at.desc())
            .limit(_NEWEST_PEAKS)
        )
        # One that was refused by forecast took nothing.
        took_all = attempts.c.ending.in_(_MEASURED), attempts.c.cause.is_distinct_from(Cause.MEMORY_FORECAST)
        newest = (
            select(tickets.c.id)
            .where(tickets.c.study_id == study_id, tickets.c.state == TicketState.CLOSED)
            .order_by(tickets.c.closed_at.desc())
            .limit(_NEWEST_TICKETS)
            .subquery()
        )
        rows = self._db.rows(measured.join(newest, newest.c.id == attempts.c.ticket_id).where(*took_all))
        own = self._db.rows(measured.where(attempts.c.ticket_id == ticket_id))
        return StudyPeaks(peaks=tuple(int(row.peak) for row in rows), own_peaks=tuple(int(row.peak) for row in own))

    def failure_streaks(self, worker_ids: Collection[str], study_ids: Collection[int]) -> list[Streak]:
        """The streak of each of these nodes at these studies, where it has one. One statement for all nodes."""
        # As a subquery the clock is a bound for the index, and not compared with every attempt of the node.
        since = select(db_now() - LOOK_BACK_S).scalar_subquery()
        # Before anything else is asked of them: where few of them are of these studies, the limit behind the join
        # would be reached by none, and all attempts of the node be read.
        recent = (
            select(*(attempts.c[name] for name in ("ticket_id", "ending", "cause", "started_at", "ended_at")))
            .where(attempts.c.worker_id == workers.c.id, attempts.c.ended_at > since)
            .order_by(attempts.c.ended_at.desc())
            .limit(NEWEST_ATTEMPTS)
            .correlate(workers)
            .lateral()
        )
        ended = (
            select(recent.c.ticket_id, tickets.c.study_id, recent.c.ending, recent.c.cause, recent.c.ended_at)
            .join(tickets, tickets.c.id == recent.c.ticket_id)
            .where(
                recent.c.started_at > func.coalesce(workers.c.reinstated_at, 0.0),
                # Of a newer version's endings nothing is known.
                recent.c.ending.in_(set(Ending) - _UNINFORMATIVE),
                tickets.c.study_id.in_(study_ids),
            )
            .order_by(recent.c.ended_at.desc())
            .limit(MOST)
            .correlate(workers)
            .lateral()
        )
        statement = select(workers.c.id.label("worker_id"), ended).where(workers.c.id.in_(worker_ids))
        # Of each ticket the newest attempt only, since it may be the ticket that fails.
        newest: dict[str, dict[int, _Ended]] = {worker_id: {} for worker_id in worker_ids}
        for row in self._db.rows(statement.order_by(ended.c.ended_at.desc())):
            found = _Ended(row.ticket_id, row.study_id, Ending(row.ending), row.cause)
            newest[row.worker_id].setdefault(row.ticket_id, found)
        by_worker = {worker_id: list(found.values()) for worker_id, found in newest.items()}
        return [streak for worker_id in worker_ids if (streak := _streak(worker_id, by_worker)) is not None]


def _streak(worker_id: str, newest: Mapping[str, Sequence[_Ended]]) -> Streak | None:
    own = list(takewhile(lambda ended: ended.ending in WENT_WRONG, newest[worker_id]))
    if not own:
        return None
    studies = {ended.study_id for ended in own}
    others = [
        ended for other, theirs in newest.items() if other != worker_id for ended in theirs if ended.study_id in studies
    ]
    return Streak(
        worker_id=worker_id,
        length=len(own),
        causes=Counter(ended.cause or str(ended.ending) for ended in own),
        others_ended=len(others),
        others_failed=sum(ended.ending in WENT_WRONG for ended in others),
    )
