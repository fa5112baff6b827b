"""Whether there is anything to do, for nodes that leave when there is not. Says nothing of what or for whom."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, or_, select

from highnoon.shared.domain.states import StudyState, TicketState
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import studies, tickets


class Work:
    """One question. Raises ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def is_there(self, resources: Sequence[str]) -> bool:
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
        with self._db.transaction() as connection:
            return connection.scalar(statement) is not None
