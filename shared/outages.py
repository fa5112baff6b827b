"""What a database that is away, or that refuses, looks like through SQLAlchemy and a driver: one error of ours.

Used by both sides of the database, `ledger` and `studies`. Retries nothing.
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.errors import ServiceError, ServiceRefused, ServiceUnavailable
from shared.urls import masked

_INSUFFICIENT_PRIVILEGE = "42501"


def service_error(url: str, error: BaseException | None) -> ServiceError | None:
    """ServiceUnavailable for what passes (a lost connection, a lock not granted in time), ServiceRefused for a missing
    right, None for everything else: that is a fault of the statement."""
    if not isinstance(error, DBAPIError | PoolTimeout):
        return None
    message = f"database {masked(url)}: {first_line(error)}"
    if getattr(getattr(error, "orig", None), "pgcode", None) == _INSUFFICIENT_PRIVILEGE:
        return ServiceRefused(f"{message}; grant its user the right to create and use tables")
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return ServiceUnavailable(message) if lost or isinstance(error, _PASSING) else None


def first_line(error: BaseException | None) -> str:
    """The driver's own words, without the statement that SQLAlchemy adds."""
    words = str(getattr(error, "orig", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__


_PASSING = (OperationalError, InterfaceError, PoolTimeout)
