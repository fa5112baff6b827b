"""Opens Optuna's storage at an address: its connections, and its tables where they are to be made."""

from __future__ import annotations

from typing import Any

from optuna.exceptions import StorageInternalError
from sqlalchemy import URL, Engine, create_engine, inspect
from sqlalchemy.exc import DBAPIError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from highnoon.shared.domain.errors import SchemaMismatch
from highnoon.shared.runtime.urls import masked
from highnoon.shared.store.connections import (
    READING_S,
    checked_address,
    is_postgres,
    postgres_engine,
    prepare_connections,
)
from highnoon.shared.store.history import HistoryStorage
from highnoon.shared.store.optuna_tables import studies as optuna_studies


def connect(url: str, *, create_schema: bool, engine: Engine | None = None) -> HistoryStorage:
    """Opens a normalised address. Raises InvalidInput for a driver that is not there, SchemaMismatch for other tables.

    Without `create_schema` the tables are taken on trust, which saves most of the time that opening takes. An `engine`
    for this address lends its connections, and its owner closes it.
    """
    address = checked_address(url)
    try:
        if is_postgres(url):
            return _on_postgres(url, engine, create_schema=create_schema)
        options = _engine_options(address)
        return _with_schema(url, options) if create_schema else _opened(url, options, trusting=True)
    except (StorageInternalError, DBAPIError):
        if not create_schema and not is_postgres(url) and _tables_are_missing(url, _engine_options(address)):
            raise _without_tables(url) from None
        raise
    except RuntimeError as error:  # so Optuna reports tables of another version
        raise SchemaMismatch(f"database {masked(url)}: {error}") from None


def _was_overtaken(error: BaseException) -> bool:
    """Whether another process has just created what this one was creating."""
    words = f"{error} {error.__cause__}"
    signs = ("already exists", "duplicate key", "UNIQUE constraint", "Duplicate entry", "concurrently")
    return any(sign in words for sign in signs)


_unless_overtaken = retry(
    retry=retry_if_exception(_was_overtaken), stop=stop_after_attempt(8), wait=wait_random(0, 0.2), reraise=True
)


def _on_postgres(url: str, lent: Engine | None, *, create_schema: bool) -> HistoryStorage:
    engine = lent or postgres_engine(url, statement_s=READING_S)
    try:
        storage = HistoryStorage(url, engine=engine)
        if create_schema:
            _unless_overtaken(storage.create_tables)()
        elif not inspect(engine).has_table(optuna_studies.name):
            raise _without_tables(url)
    except BaseException:
        if lent is None:
            engine.dispose()
        raise
    return storage


@_unless_overtaken
def _with_schema(url: str, options: dict[str, Any]) -> HistoryStorage:
    return _opened(url, options, trusting=False)


def _opened(url: str, options: dict[str, Any], *, trusting: bool) -> HistoryStorage:
    # Optuna takes braces in an address for a template.
    address = url.replace("{", "{{").replace("}", "}}")
    storage = HistoryStorage(
        address, engine_kwargs=dict(options), skip_table_creation=trusting, skip_compatibility_check=trusting
    )
    if storage.engine.dialect.name == "sqlite" and trusting:
        return storage  # another program's file, read only
    if storage.engine.dialect.name == "sqlite":
        with storage.engine.connect() as connection:
            # Lasts with the file: readers and the one writer no longer wait for each other.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    else:
        prepare_connections(storage.engine, statement_s=READING_S)
    return storage


def _engine_options(address: URL) -> dict[str, Any]:
    if address.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 30}}
    return {"isolation_level": "READ COMMITTED", "pool_recycle": 1800}


def _tables_are_missing(url: str, options: dict[str, Any]) -> bool:
    engine = create_engine(url, **options)
    try:
        return not inspect(engine).has_table(optuna_studies.name)
    finally:
        engine.dispose()


def _without_tables(url: str) -> SchemaMismatch:
    return SchemaMismatch(f"database {masked(url)} holds no studies yet: start a coordinator on it")
