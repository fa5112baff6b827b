"""What a database that is away looks like through Optuna, SQLAlchemy and a driver, as one error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.errors import ServiceUnavailable
from shared.urls import masked


@contextmanager
def reported(url: str) -> Iterator[None]:
    """Raises ServiceUnavailable for a lost connection, a lock not granted in time, a deadlock: try again later."""
    try:
        yield
    except (DBAPIError, PoolTimeout, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        if not _passes(cause):
            raise
        raise ServiceUnavailable(f"database {masked(url)}: {first_line(cause)}") from None


def first_line(error: BaseException | None) -> str:
    """The driver's own words, without the statement that SQLAlchemy adds."""
    words = str(getattr(error, "orig", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__


def _passes(error: BaseException | None) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout)
