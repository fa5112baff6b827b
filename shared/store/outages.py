"""What a database that is away, or that refuses, looks like through SQLAlchemy and a driver: one error of ours.

Used by the ledger and by Optuna's storage, which retry nothing; `retry_until_available` is for callers whose work must
not be lost to an outage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, stop_never, wait_random_exponential

from highnoon.shared.domain.errors import InvariantBroken, RowLocked, ServiceError, ServiceRefused, ServiceUnavailable
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.urls import masked

T = TypeVar("T")

_INSUFFICIENT_PRIVILEGE = "42501"
_LOCK_NOT_AVAILABLE = "55P03"
_READ_ONLY = "25006"
"""A standby that is not promoted yet, or a server that protects a full disk."""


def service_error(url: str, error: BaseException | None) -> ServiceError | None:
    """ServiceUnavailable for what passes (a lost connection, a lock not granted in time), ServiceRefused for a missing
    right, None for everything else: that is a fault of the statement."""
    if not isinstance(error, DBAPIError | PoolTimeout):
        return None
    message = f"database {masked(url)}: {first_line(error)}"
    code = getattr(getattr(error, "orig", None), "pgcode", None)
    if code == _INSUFFICIENT_PRIVILEGE:
        return ServiceRefused(f"{message}; grant its user the right to create and use tables")
    if code == _LOCK_NOT_AVAILABLE:
        return RowLocked(message)
    lost = (isinstance(error, DBAPIError) and error.connection_invalidated) or code == _READ_ONLY
    return ServiceUnavailable(message) if lost or isinstance(error, _PASSING) else None


def first_line(error: BaseException | None) -> str:
    """The driver's own words, without the statement that SQLAlchemy adds."""
    words = str(getattr(error, "orig", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__


_PASSING = (OperationalError, InterfaceError, PoolTimeout)


def retry_until_available(
    step: Callable[[], T], log: logging.Logger, *, wait_for_locks: bool = True, for_s: float | None = None
) -> T:
    """Repeats a step until the database answers: hours of training may hang on it. Raises any other error of it.

    Without `wait_for_locks` RowLocked is raised as well; after `for_s` seconds ServiceUnavailable is.
    """

    def is_worth_waiting(error: BaseException) -> bool:
        return isinstance(error, ServiceUnavailable) and (wait_for_locks or not isinstance(error, RowLocked))

    def note_wait(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        event(log, "waiting_for_database", level=logging.WARNING, tries=state.attempt_number, error=error)

    for attempt in Retrying(
        retry=retry_if_exception(is_worth_waiting),
        wait=wait_random_exponential(multiplier=0.25, max=5.0),
        stop=stop_never if for_s is None else stop_after_delay(for_s),
        before_sleep=note_wait,
        reraise=True,
    ):
        with attempt:
            return step()
    raise InvariantBroken("an endless retry ended")
