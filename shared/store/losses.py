"""What becomes of a ticket whose holder is gone: tried again, or settled as lost. For observers, never for holders."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, true, update

from highnoon.shared.domain.lease import Disposition, RetryPolicy, dispose, retry_delay_s
from highnoon.shared.domain.states import Ending, TicketState
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store.database import Database
from highnoon.shared.store.fences import attempt_of, held, waiting_or_cancelled
from highnoon.shared.store.schema import attempts, db_now, studies, tickets


class Losses:
    """Statements about the dead. Raises ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def lose(self, ticket_id: int, attempt: int, *, message: str, only_expired: bool) -> Disposition | None:
        """The holder is dead (seen by its agent) or its lease ran out (`only_expired`): retry, or settle as lost.

        None when the attempt is no longer the ticket's lease, or not expired after all.
        """
        fence = held(ticket_id, attempt)
        expired = tickets.c.lease_expires_at < db_now() if only_expired else true()
        statement = (
            select(tickets.c.losses, tickets.c.errors, studies.c.spec)
            .join(studies, studies.c.id == tickets.c.study_id)
            .where(fence, expired)
            .with_for_update(of=tickets)
        )
        outcome = Outcome(ending=Ending.LOST, cause="lost", message=message)
        with self._db.transaction() as connection:
            row = connection.execute(statement).first()
            if row is None:
                return None
            policy = RetryPolicy(max_attempts=row.spec["max_attempts"], retry_errors=row.spec["retry_errors"])
            disposition = dispose(outcome, losses=row.losses, errors=row.errors, policy=policy)
            connection.execute(update(tickets).where(fence).values(_after_loss(disposition, outcome, row.losses)))
            connection.execute(
                update(attempts)
                .where(attempt_of(ticket_id, attempt))
                .values(ended_at=db_now(), ending=outcome.ending, cause=outcome.cause, message=message)
            )
        return disposition


def _after_loss(disposition: Disposition, outcome: Outcome, losses: int) -> dict[str, Any]:
    charged = {"losses": losses + 1, "lease_expires_at": None}
    if disposition is Disposition.SETTLE:
        settled = {"state": TicketState.SETTLED, "ending": outcome.ending, "outcome": outcome.to_json()}
        return {**charged, **settled, "settled_at": db_now()}
    not_before = db_now() + retry_delay_s(losses)
    waiting = {"state": waiting_or_cancelled(), "worker_id": None, "queued_at": None, "not_before": not_before}
    return {**charged, **waiting}
