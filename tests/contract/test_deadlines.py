"""Every call to a service that is frozen ends in time, as an outage; a healthy service cuts nothing that is allowed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg2.extensions
import pytest
from sqlalchemy import text

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.store import connections
from highnoon.shared.store.connections import allow_longer
from highnoon.shared.store.database import Database
from tests.conftest import new_stack
from tests.frozen import Stopwatch, frozen


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """Services that these tests may stop."""
    with new_stack() as stack:
        yield stack


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Deadlines on our side, as in a process of ours, until the end of the test."""
    monkeypatch.setattr(connections, "_CONNECT_S", 1.0)
    monkeypatch.setattr(connections, "_SERVER_FIRST_S", 0.5)
    monkeypatch.setattr(connections, "runs_only_our_code", lambda: True)
    connections._connection_class.cache_clear()
    yield
    psycopg2.extensions.set_wait_callback(None)
    connections._connection_class.cache_clear()


@pytest.fixture
def database(own_stack: Stack, deadlines: None) -> Iterator[Database]:
    database = Database(own_stack.database_url, statement_s=0.5)
    yield database
    database.close()


def _answer(database: Database, statement: str = "SELECT 1") -> object:
    with database.transaction() as connection:
        return connection.scalar(text(statement))


def test_statement_on_a_frozen_database_is_an_outage_and_its_connection_is_replaced(
    own_stack: Stack, database: Database
) -> None:
    before = _answer(database, "SELECT pg_backend_pid()")
    with frozen(own_stack, "postgres"), Stopwatch() as watch, pytest.raises(ServiceUnavailable, match="no answer"):
        _answer(database)
    assert watch.seconds < 2.5
    assert _answer(database, "SELECT pg_backend_pid()") != before


def test_commit_on_a_frozen_database_is_an_outage(own_stack: Stack, database: Database) -> None:
    with ExitStack() as freeze:
        with (
            Stopwatch() as watch,
            pytest.raises(ServiceUnavailable, match="no answer within 1 s"),
            database.transaction() as connection,
        ):
            connection.execute(text("SELECT 1"))
            freeze.enter_context(frozen(own_stack, "postgres"))
        assert watch.seconds < 2.5
    assert _answer(database) == 1


def test_connecting_to_a_frozen_database_is_an_outage(own_stack: Stack, deadlines: None) -> None:
    database = Database(own_stack.database_url)
    with frozen(own_stack, "postgres"), Stopwatch() as watch, pytest.raises(ServiceUnavailable, match="no answer"):
        _answer(database)
    assert watch.seconds < 2.5
    assert _answer(database) == 1
    database.close()


def test_slow_statement_is_ended_by_the_server_and_a_longer_one_can_be_allowed(database: Database) -> None:
    with pytest.raises(ServiceUnavailable, match="statement timeout"):
        _answer(database, "SELECT pg_sleep(5)")
    with database.transaction() as connection:
        allow_longer(connection, 10.0)
        connection.execute(text("SELECT pg_sleep(1.2)"))
    with pytest.raises(ServiceUnavailable, match="statement timeout"):
        _answer(database, "SELECT pg_sleep(5)")


def test_use_in_a_process_of_a_user_sets_no_hook(own_stack: Stack) -> None:
    program = (
        "import sys; from highnoon.shared.store.database import Database\n"
        "from sqlalchemy import text\n"
        "with Database(sys.argv[1]).transaction() as connection: connection.execute(text('SELECT 1'))\n"
        "from psycopg2.extensions import get_wait_callback; assert get_wait_callback() is None\n"
    )
    subprocess.run([sys.executable, "-c", program, own_stack.database_url], check=True)
