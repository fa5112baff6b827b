"""The connection to the ledger's database: engine, transactions, schema and its version.

Raises our own errors only: ServiceUnavailable when the database cannot be reached, SchemaMismatch when another
version made the tables, LeaseLost when a function of ours raises it. Never build a Database before a fork; each process
that talks to PostgreSQL makes its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    TextClause,
    UpdateBase,
    create_engine,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from highnoon.shared.domain.errors import (
    InvalidInput,
    LeaseLost,
    SchemaMismatch,
    ServiceRefused,
    ServiceUnavailable,
)
from highnoon.shared.runtime.urls import masked, normalise
from highnoon.shared.store.connections import (
    AT_MOST,
    STATEMENT_S,
    allow_longer,
    checked_address,
    is_postgres,
    postgres_engine,
)
from highnoon.shared.store.outages import first_line, service_error
from highnoon.shared.store.schema import SCHEMA_VERSION, meta, metadata
from highnoon.shared.store.upgrades import upgrade_rows, upgrade_tables

_SCHEMA_LOCK = 0x484E_4850
"""Advisory lock (HNHP): two coordinators that start together must not both create the tables."""

_UPGRADE_S = 1800.0
"""For a table of many millions of rows that a new version alters."""

_LEASE_LOST = "HN001"
"""As `functions.sql` raises it."""


class Database:
    """One process's way to the ledger."""

    def __init__(self, url: str, *, statement_s: float = STATEMENT_S, at_most: int = AT_MOST) -> None:
        """No statement takes longer than `statement_s`; beyond it is an outage, ServiceUnavailable.

        It has `at_most` so many connections, each made at its first use. A process with one thread that runs statements
        needs one, and must not begin a statement beside an open transaction.
        """
        self.url = normalise(url)
        checked_address(self.url)
        self.engine = (
            postgres_engine(self.url, statement_s=statement_s, at_most=at_most)
            if is_postgres(self.url)
            else create_engine(self.url)
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One READ COMMITTED transaction. Raises ServiceUnavailable or ServiceRefused; commits at the end."""
        with self._errors(), self.engine.begin() as connection:
            yield connection

    def call(self, statement: str | TextClause, **values: Any) -> Any:
        """The value of one statement, which is a transaction of its own: one round trip. Raises LeaseLost, too.

        Calls of every trial are the driver's own text, with `%(name)s` for each value: SQLAlchemy's doubles their cost.
        """
        with self._errors(), autocommit(self.engine) as connection:
            if isinstance(statement, str):
                return connection.exec_driver_sql(statement, values).scalar()
            return connection.scalar(statement, values)

    def row(self, statement: TextClause, **values: Any) -> RowMapping | None:
        """The first row of one statement, which is a transaction of its own: one round trip."""
        with self._errors(), autocommit(self.engine) as connection:
            return connection.execute(statement, values).mappings().first()

    def rows(self, statement: Executable, **values: Any) -> Sequence[Any]:
        """All rows of one statement, which is a transaction of its own: one round trip."""
        with self._errors(), autocommit(self.engine) as connection:
            return connection.execute(statement, values).all()

    def changed(self, statement: UpdateBase | TextClause) -> int:
        """How many rows one statement changed, which is a transaction of its own: one round trip."""
        with self._errors(), autocommit(self.engine) as connection:
            return connection.execute(statement).rowcount

    def create_schema(self) -> None:
        """Creates the tables, or brings an older version's up to date. Raises SchemaMismatch for a newer one.

        On PostgreSQL alone; another database may be opened, to find that it holds no ledger.
        """
        if self.engine.dialect.name != "postgresql":
            raise InvalidInput.of("settings", "database_url", "must be a postgresql:// address", value=masked(self.url))
        with self.transaction() as connection:
            allow_longer(connection, _UPGRADE_S)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            found = _version(connection)
            if found is None or found <= SCHEMA_VERSION:
                if found is not None:
                    upgrade_tables(connection, found)
                metadata.create_all(connection)
                _install_functions(connection)
                if found is not None:
                    upgrade_rows(connection, found)
                if found is None:
                    connection.execute(insert(meta).values(key="schema_version", value=str(SCHEMA_VERSION)))
                else:
                    version = update(meta).where(meta.c.key == "schema_version")
                    connection.execute(version.values(value=str(SCHEMA_VERSION)))
        self.check_schema()

    def check_schema(self) -> None:
        """Raises ServiceUnavailable until a coordinator has made the tables this version needs.

        Raises SchemaMismatch for a newer version's tables: waiting would not help.
        """
        with self.transaction() as connection:
            found = _version(connection)
        if found == SCHEMA_VERSION:
            return
        if found is None:
            raise ServiceUnavailable(
                f"database {masked(self.url)} holds no HighNoon ledger yet: start a coordinator on it"
            )
        problem = f"database {masked(self.url)} has ledger version {found}, this HighNoon needs {SCHEMA_VERSION}"
        if found < SCHEMA_VERSION:
            raise ServiceUnavailable(f"{problem}: start a coordinator of this version, which brings it up to date")
        raise SchemaMismatch(f"{problem}: use the HighNoon that made it, or another database")

    def check_limits(self) -> None:
        """Raises ServiceRefused where a pooler leaves out the deadlines that each connection asks for."""
        if self.call(text("SHOW lock_timeout")) == "0":
            raise ServiceRefused(
                f"database {masked(self.url)}: lock_timeout is 0 for this role, so that a client that hangs holds up "
                "the others. Set the limits of deploy/postgres/roles.sql for it: ALTER ROLE ... SET lock_timeout = '5s'"
            )

    def close(self) -> None:
        """Gives all connections back to the server."""
        self.engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeout) as error:
            if getattr(getattr(error, "orig", None), "pgcode", None) == _LEASE_LOST:
                raise LeaseLost(first_line(error)) from None
            known = service_error(self.url, error)
            if known is None:
                raise
            raise known from error


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is a transaction of its own, without BEGIN and COMMIT as round trips."""
    if engine.dialect.driver != "psycopg2":
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            yield connection
        return
    with engine.connect() as connection:
        # SQLAlchemy's own way sends a statement when the connection is given back.
        driver: Any = connection.connection.dbapi_connection
        driver.autocommit = True
        try:
            yield connection
        finally:
            if not driver.closed:
                driver.autocommit = False


def _version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(meta.name):
        return None
    found = connection.scalar(select(meta.c.value).where(meta.c.key == "schema_version"))
    return None if found is None else int(found)


def _install_functions(connection: Connection) -> None:
    script = files("highnoon.shared.store").joinpath("functions.sql").read_text(encoding="utf-8")
    connection.exec_driver_sql(script, execution_options={"no_parameters": True})


__all__ = ["Database", "IntegrityError", "autocommit"]
