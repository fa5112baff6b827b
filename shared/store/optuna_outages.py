"""The same border for Optuna, which wraps what SQLAlchemy raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from highnoon.shared.store.outages import service_error


@contextmanager
def reported(url: str) -> Iterator[None]:
    """Raises ServiceUnavailable for a lost connection, a lock not granted in time, a deadlock: try again later."""
    try:
        yield
    except (DBAPIError, PoolTimeout, StorageInternalError) as error:
        known = service_error(url, error.__cause__ if isinstance(error, StorageInternalError) else error)
        if known is None:
            raise
        raise known from None
