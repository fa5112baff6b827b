"""Connections that lay idle are tried before they are used again: servers and firewalls close such ones without a word.

For both sides of the database. So that the first request after a restart of PostgreSQL finds a new connection where it
would find a closed one; a connection in steady use costs nothing. (SQLAlchemy's own pre-ping tries each use.)
"""

from __future__ import annotations

import math
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

_POSTGRES_OPTIONS = "-c lock_timeout=5s -c idle_in_transaction_session_timeout=30s"

_IDLE_S = 0.1
"""No server restarts in less, and a supervisor's uses between two trials follow each other in milliseconds."""


def try_idle_connections(engine: Engine) -> None:
    """One more round trip for a connection that lay idle; a dead one is replaced. To be called once per engine."""

    def note(_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["idle_since"] = time.monotonic()

    def try_it(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - entry.info.get("idle_since", math.inf) > _IDLE_S:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", try_it)


def postgres_arguments(options: str = "") -> dict[str, Any]:
    """What psycopg2 is told of each connection, beside `options` that an address brings.

    A server that vanished without a word (its machine lost power) is given up after 20 to 25 seconds; by the kernel's
    own defaults a supervisor would wait for it for a quarter of an hour, and watch nothing meanwhile.
    """
    return {
        "connect_timeout": 5,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "options": f"{options} {_POSTGRES_OPTIONS}".strip(),
    }
