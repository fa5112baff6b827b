"""The connection to the ledger's database: engine, transactions, schema and its version.

Raises our own errors only: ServiceUnavailable when the database cannot be reached, SchemaMismatch when another
version made the tables. Never build a Database before a fork; each process that talks to PostgreSQL makes its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from highnoon.shared.domain.errors import SchemaMismatch, ServiceUnavailable
from highnoon.shared.runtime.urls import masked, normalise
from highnoon.shared.store.connections import STATEMENT_S, allow_longer, postgres_arguments, prepare_connections
from highnoon.shared.store.outages import service_error
from highnoon.shared.store.schema import SCHEMA_VERSION, meta, metadata
from highnoon.shared.store.upgrades import upgrade

_SCHEMA_LOCK = 0x484E_4850
"""Advisory lock (HNHP): two coordinators that start together must not both create the tables."""

_UPGRADE_S = 1800.0
"""For a table of many millions of rows that a new version alters."""


class Database:
    """One process's way to the ledger."""

    def __init__(self, url: str, *, statement_s: float = STATEMENT_S) -> None:
        """No statement takes longer than `statement_s`; beyond it is an outage, ServiceUnavailable."""
        self.url = normalise(url)
        self.engine = _engine(self.url, statement_s)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One READ COMMITTED transaction. Raises ServiceUnavailable or ServiceRefused; commits at the end."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except (DBAPIError, PoolTimeout) as error:
            known = service_error(self.url, error)
            if known is None:
                raise
            raise known from error

    def create_schema(self) -> None:
        """Makes the tables, or brings those of an older version up to date. Raises SchemaMismatch for a newer one."""
        with self.transaction() as connection:
            allow_longer(connection, _UPGRADE_S)
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            metadata.create_all(connection)
            found = connection.scalar(select(meta.c.value).where(meta.c.key == "schema_version"))
            if found is None:
                connection.execute(insert(meta).values(key="schema_version", value=str(SCHEMA_VERSION)))
            elif int(found) < SCHEMA_VERSION:
                upgrade(connection, int(found))
                connection.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(SCHEMA_VERSION)))
        self.check_schema()

    def check_schema(self) -> None:
        """Raises ServiceUnavailable until a coordinator has made the tables this version needs.

        Raises SchemaMismatch for those of a newer one: waiting would not help.
        """
        with self.transaction() as connection:
            if not inspect(connection).has_table(meta.name):
                raise ServiceUnavailable(
                    f"database {masked(self.url)} holds no HighNoon ledger yet: start a coordinator on it"
                )
            found = connection.scalar(select(meta.c.value).where(meta.c.key == "schema_version"))
        if found == str(SCHEMA_VERSION):
            return
        problem = f"database {masked(self.url)} has ledger version {found}, this HighNoon needs {SCHEMA_VERSION}"
        if int(found or 0) < SCHEMA_VERSION:
            raise ServiceUnavailable(f"{problem}: start a coordinator of this version, which brings it up to date")
        raise SchemaMismatch(f"{problem}: use the HighNoon that made it, or another database")

    def close(self) -> None:
        """Gives all connections back to the server."""
        self.engine.dispose()


def _engine(url: str, statement_s: float) -> Engine:
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 30})
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",
        # Made when they are needed, and kept: each new one is a new process of the server.
        pool_size=5,
        max_overflow=0,
        pool_recycle=1800,
        connect_args=_connect_args(url, statement_s),
    )
    prepare_connections(engine, statement_s=statement_s)
    return engine


def _connect_args(url: str, statement_s: float) -> dict[str, Any]:
    if url.startswith("postgresql+psycopg2"):
        return postgres_arguments(statement_s=statement_s)
    return {}


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")


__all__ = ["Database", "IntegrityError"]
