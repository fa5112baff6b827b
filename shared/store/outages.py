"""What a database that is away, or that refuses, looks like through SQLAlchemy and a driver: one error of ours.

Used by the ledger and by Optuna's storage, which retry nothing; `retry_until_available` is for callers whose work must
not be lost to an outage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, stop_never, wait_random_exponential

from highnoon.shared.domain.errors import (
    InvariantBroken,
    RowLocked,
    ServiceError,
    ServiceRefused,
    ServiceUnavailable,
    TooManyConnections,
)
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.urls import masked

T = TypeVar("T")

_INSUFFICIENT_PRIVILEGE = "42501"
_LOCK_NOT_AVAILABLE = "55P03"
_READ_ONLY = "25006"
"""A standby that is not promoted yet, or a server that protects a full disk."""

_LIMITS: Mapping[str, str] = {
    "too many clients": "max_connections of PostgreSQL",
    "remaining connection slots are reserved": "max_connections of PostgreSQL",
    "too many connections for role": "the CONNECTION LIMIT of its role",
    "too many connections for database": "the CONNECTION LIMIT of the database",
    "no more connections allowed": "max_client_conn of PgBouncer",
}
"""In the servers' words, for an error that has no code: a connection that was refused brings none."""

_NEEDED = "A node takes one connection for each slot and one more, a coordinator up to 6, a dashboard up to 5"

_POOLER_REFUSES = "unsupported startup parameter"

_AGAIN_S = 60.0


def service_error(url: str, error: BaseException | None) -> ServiceError | None:
    """ServiceUnavailable for what passes (a lost connection, a lock not granted in time), ServiceRefused for a missing
    right, None for everything else: that is a fault of the statement."""
    if not isinstance(error, DBAPIError | PoolTimeout):
        return None
    words = first_line(error)
    message = f"database {masked(url)}: {words}"
    if limit := next((limit for sign, limit in _LIMITS.items() if sign in words), None):
        return TooManyConnections(
            f"{message}. {_NEEDED}: raise {limit}, run fewer slots, or put PgBouncer in front of PostgreSQL"
        )
    if _POOLER_REFUSES in words:
        return ServiceRefused(f"{message}; set ignore_startup_parameters = options in pgbouncer.ini")
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

    outages = OutageLog(log)

    def note_wait(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        outages.note("waiting_for_database", error, tries=state.attempt_number)

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


class OutageLog:
    """Logs each trouble of an outage once, and again every minute while it lasts."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._noted: dict[tuple[str, str], float] = {}

    def note(self, action: str, error: BaseException | None, **fields: object) -> None:
        """One failed try. The words of the error decide whether it is a new trouble."""
        key, now = (action, str(error)), time.monotonic()
        if now >= self._noted.get(key, 0.0):
            self._noted[key] = now + _AGAIN_S
            event(self._log, action, level=logging.WARNING, **fields, error=error)

    def end(self) -> None:
        """The database answers: what comes next is logged at once."""
        self._noted.clear()
