"""The run's own connections to PostgreSQL, each with deadlines.

A run has one thread. If a statement of it waited without a deadline for a row that a fault of its own has locked, the
timer that ends this fault would never come.
"""

from __future__ import annotations

from typing import Any

import psycopg2
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError

OUTAGE = (psycopg2.Error, DBAPIError, StorageInternalError, OSError)
"""What a fault of another kind does to a client of the run."""

_LOCK_MS, _STATEMENT_MS = 1_000, 5_000


def connected(url: str, *, settings: str = "") -> Any:
    """A connection of psycopg2, with further `settings` of its session. No statement of it lasts for long."""
    return psycopg2.connect(url.replace("+psycopg2", "", 1), **_deadlines(settings))


def optuna_storage(url: str) -> RDBStorage:
    """As another program opens it, with the same deadlines."""
    return RDBStorage(url, engine_kwargs={"connect_args": _deadlines()})


def _deadlines(settings: str = "") -> dict[str, Any]:
    return {
        "application_name": "chaos",
        "connect_timeout": 3,
        "tcp_user_timeout": _STATEMENT_MS,
        "options": f"-c lock_timeout={_LOCK_MS} -c statement_timeout={_STATEMENT_MS} {settings}",
    }
