"""Connections to PostgreSQL: deadlines for every statement, and a check of connections that were idle.

A statement has two deadlines. The server's own (`statement_timeout`) ends what is merely slow. Ours, a little later,
ends the wait for a server that does not answer at all: one that is stopped (SIGSTOP, a frozen virtual machine) still
acknowledges TCP, so no option of the socket notices it. Either one is an outage for the caller: ServiceUnavailable.
Ours is there only in processes that run nothing but our code: psycopg2 has one hook for a whole process, which forbids
COPY, and a person's script may need that.
Measured: 1.2 microseconds more for each statement (12.3 against 11.1 on one core), nothing for a long result.
"""

from __future__ import annotations

import math
import os
import select
import time
from functools import cache
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.runtime.processes import runs_only_our_code
from highnoon.shared.runtime.urls import is_loopback, masked

STATEMENT_S = 10.0
"""Workers and coordinator: with 100,000 trials their slowest statement takes about a second, and a lock is given up
after 5 s. Short against a lease of 30 s: after one that hung, a renewal can be tried again in time."""

READING_S = 120.0
"""Histories, dashboard, exports: one statement may bring all trials of a study of 100,000."""

AT_MOST = 5
"""Most connections of one engine by default. One that is made is kept: each is a process of the server."""

_READ_COMMITTED = r"-c default_transaction_isolation=read\ committed"
"""As an option of the connection: as one of the engine, each change to autocommit would cost a round trip."""

_STATEMENT_S = "statement_s"
_CONNECT_S = 5.0
_SERVER_FIRST_S = 2.0
"""By so much our deadline is later than the server's, whose answer is worth more: it names the cause."""

_IDLE_S = 0.02
"""No server restarts in less: a local one takes a tenth of a second. A supervisor's uses between two trials follow each
other in milliseconds."""


def postgres_engine(url: str, *, statement_s: float = STATEMENT_S, at_most: int = AT_MOST) -> Engine:
    """An engine for a normalised address of PostgreSQL: at most so many connections, each with its deadlines."""
    options = f"{make_url(url).query.get('options', '')} {_READ_COMMITTED}"
    engine = create_engine(
        url,
        pool_size=at_most,
        max_overflow=0,
        pool_recycle=1800,
        connect_args=_arguments(options, statement_s=statement_s),
        execution_options={_STATEMENT_S: statement_s},
    )
    prepare_connections(engine, statement_s=statement_s)
    return engine


def allows(engine: Engine, seconds: float) -> bool:
    """Whether a statement may take so long without `allow_longer`."""
    return float(engine.get_execution_options().get(_STATEMENT_S, math.inf)) >= seconds


def checked_address(url: str) -> URL:
    """Takes a normalised address apart. Raises InvalidInput for one that cannot be read, and for a missing driver."""
    try:
        address = make_url(url)
        address.get_dialect().import_dbapi()
        return address
    except (ArgumentError, ImportError, ValueError) as error:
        raise InvalidInput.of(
            "storage",
            "url",
            f"cannot be used ({error})",
            value=masked(url),
            hint="Leave the driver out: postgresql:// and mysql:// find the ones that come with HighNoon.",
        ) from None


def is_postgres(url: str) -> bool:
    """Whether a normalised address is one of PostgreSQL by the driver that we use."""
    return make_url(url).get_driver_name() == "psycopg2"


def is_on_this_machine(url: str) -> bool:
    """Whether a normalised address names no other machine: a file, a socket, or loopback. Raises InvalidInput."""
    address = checked_address(url)
    named = (address.host or (), address.query.get("host", ()), address.query.get("hostaddr", ()))
    hosts = [host for one in named for host in ([one] if isinstance(one, str) else one)]
    if is_postgres(url):
        # Where the driver connects to then. What a service means stands in a file.
        hosts = hosts or [os.environ.get(name, "") for name in ("PGHOST", "PGHOSTADDR")]
        if "service" in address.query or "PGSERVICE" in os.environ:
            return False
    return all(not host or host.startswith("/") or is_loopback(host) for host in hosts)


def prepare_connections(engine: Engine, *, statement_s: float = STATEMENT_S) -> None:
    """Sets the deadlines of an engine's statements, and checks idle connections before they are used again.

    Servers and firewalls close idle connections silently: after a restart of PostgreSQL the first request finds a new
    connection instead of a closed one. One more round trip, for idle connections only (SQLAlchemy's pre-ping: always).
    """

    def on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
        _set_deadline(connection, statement_s + _SERVER_FIRST_S)

    def on_checkin(_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["idle_since"] = time.monotonic()

    def on_checkout(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - entry.info.get("idle_since", math.inf) > _IDLE_S:
            _set_deadline(connection, _CONNECT_S)
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error
        _set_deadline(connection, statement_s + _SERVER_FIRST_S)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "checkin", on_checkin)
    event.listen(engine, "checkout", on_checkout)


def _arguments(options: str, *, statement_s: float) -> dict[str, Any]:
    """The arguments of psycopg2 for each connection; `options` are those that an address brings.

    A server that vanished silently (its machine lost power) is given up after 20 to 25 seconds; by the kernel's own
    defaults it would take a quarter of an hour.
    """
    limits = f"-c statement_timeout={statement_s * 1000:.0f} -c lock_timeout=5s"
    return {
        "connect_timeout": int(_CONNECT_S),
        "connection_factory": _connection_class(),
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        # Ours first: what a person writes into the address holds.
        "options": f"{limits} -c idle_in_transaction_session_timeout=10s {options}".strip(),
    }


def allow_longer(connection: Connection, seconds: float) -> None:
    """Sets the deadlines for the rest of this transaction on PostgreSQL: upgrades of large tables, backups to disks."""
    if connection.dialect.driver == "psycopg2":
        limits = ("statement_timeout", "idle_in_transaction_session_timeout")
        connection.exec_driver_sql("; ".join(f"SET LOCAL {limit} = {seconds * 1000:.0f}" for limit in limits))
        _set_deadline(connection.connection.dbapi_connection, seconds + _SERVER_FIRST_S)


@cache
def _connection_class() -> type[Any]:
    """psycopg2's connection with a deadline. Imported late: the in-process use does not need psycopg2."""
    from psycopg2.extensions import connection, set_wait_callback

    if runs_only_our_code():
        set_wait_callback(_wait)

    class Connection(connection):
        deadline_s = _CONNECT_S

    return Connection


def _set_deadline(connection: Any, seconds: float) -> None:
    if hasattr(connection, "deadline_s"):
        connection.deadline_s = seconds


def _wait(connection: Any) -> None:
    """psycopg2 calls this for each round trip. An exception here closes the connection: it is not used again."""
    from psycopg2 import OperationalError
    from psycopg2.extensions import POLL_OK, POLL_READ

    allowed_s = getattr(connection, "deadline_s", math.inf)
    deadline = time.monotonic() + allowed_s
    poller = select.poll()
    while (state := connection.poll()) != POLL_OK:
        descriptor = connection.fileno()
        poller.register(descriptor, select.POLLIN if state == POLL_READ else select.POLLOUT)
        left_s = deadline - time.monotonic()
        if not poller.poll(None if left_s == math.inf else max(0.0, left_s) * 1000):
            raise OperationalError(f"no answer within {allowed_s:g} s")
        poller.unregister(descriptor)
