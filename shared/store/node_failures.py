"""How the attempts of each node ended lately, beside those of other nodes at the same studies. Judges nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from sqlalchemy import func, select

from highnoon.shared.domain.states import Ending
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import attempts, db_now, tickets, workers

LOOK_BACK_S = 86_400.0
"""What is older says nothing about a node as it is now."""

MOST = 20
"""Of the newest attempts of each node."""

FAILURES = frozenset({Ending.FAILED, Ending.KILLED, Ending.LOST, Ending.TIMED_OUT})
"""Endings that the node may be the reason of; a stop for memory has its own remedies."""

_SAYS_NOTHING = frozenset({Ending.RELEASED, Ending.CANCELLED})


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


class Streaks:
    """Reads the newest attempts of nodes. Raises ServiceUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of(self, worker_ids: Collection[str], study_ids: Collection[int]) -> list[Streak]:
        """The streak of each of these nodes at these studies, where it has one. One statement for all nodes."""
        ended = (
            select(attempts.c.ticket_id, tickets.c.study_id, attempts.c.ending, attempts.c.cause, attempts.c.ended_at)
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .where(
                attempts.c.worker_id == workers.c.id,
                attempts.c.ended_at > db_now() - LOOK_BACK_S,
                attempts.c.started_at > func.coalesce(workers.c.reinstated_at, 0.0),
                # Of a newer version's endings nothing is known.
                attempts.c.ending.in_(set(Ending) - _SAYS_NOTHING),
                tickets.c.study_id.in_(study_ids),
            )
            .order_by(attempts.c.ended_at.desc())
            .limit(MOST)
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
    own = list(takewhile(lambda ended: ended.ending in FAILURES, newest[worker_id]))
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
        others_failed=sum(ended.ending in FAILURES for ended in others),
    )
