"""What statements on leased tickets have in common: which lease the row must still be of, and its state afterwards."""

from __future__ import annotations

from sqlalchemy import and_, case
from sqlalchemy.sql.elements import ColumnElement

from highnoon.shared.domain.states import TicketState
from highnoon.shared.store.schema import attempts, tickets


def held(ticket_id: int, attempt: int) -> ColumnElement[bool]:
    """The ticket is leased, and by this attempt."""
    return and_(
        tickets.c.id == ticket_id,
        tickets.c.attempt == attempt,
        tickets.c.state == TicketState.LEASED,
    )


def attempt_of(ticket_id: int, attempt: int) -> ColumnElement[bool]:
    """The row of this attempt."""
    return and_(attempts.c.ticket_id == ticket_id, attempts.c.attempt == attempt)


def waiting_or_cancelled() -> ColumnElement[str]:
    """The state of a ticket that is given back: a person may have cancelled its study meanwhile."""
    return case((tickets.c.cancel_requested, TicketState.CANCELLED.value), else_=TicketState.WAITING.value)
