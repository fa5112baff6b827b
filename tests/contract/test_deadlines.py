"""Every call to a service that is frozen ends in time, as an outage; a healthy service cuts nothing that is allowed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg2.extensions
import pytest
from sqlalchemy import text

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.runtime import broker as broker_module
from highnoon.shared.runtime.broker import Broker
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
    assert watch.seconds < _FAR_FROM_FOR_EVER_S
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
        assert watch.seconds < _FAR_FROM_FOR_EVER_S
    assert _answer(database) == 1


def test_connecting_to_a_frozen_database_is_an_outage(own_stack: Stack, deadlines: None) -> None:
    database = Database(own_stack.database_url)
    with frozen(own_stack, "postgres"), Stopwatch() as watch, pytest.raises(ServiceUnavailable, match="no answer"):
        _answer(database)
    assert watch.seconds < _FAR_FROM_FOR_EVER_S
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


def test_a_longer_transaction_may_be_idle_as_long(database: Database) -> None:
    show = text("SHOW idle_in_transaction_session_timeout")
    with database.transaction() as connection:
        allow_longer(connection, 1800.0)
        assert connection.scalar(show) == "30min"
    with database.transaction() as connection:
        assert connection.scalar(show) == "10s"


def test_use_in_a_process_of_a_user_sets_no_hook(own_stack: Stack) -> None:
    program = (
        "import sys; from highnoon.shared.store.database import Database\n"
        "from sqlalchemy import text\n"
        "with Database(sys.argv[1]).transaction() as connection: connection.execute(text('SELECT 1'))\n"
        "from psycopg2.extensions import get_wait_callback; assert get_wait_callback() is None\n"
    )
    subprocess.run([sys.executable, "-c", program, own_stack.database_url], check=True)


_FAR_FROM_FOR_EVER_S = 15.0

MESSAGE = RunTrial(study="digits", ticket=17)

CALLS: dict[str, Callable[[Broker], object]] = {
    "publish": lambda broker: broker.publish([MESSAGE, MESSAGE], resource="cpu"),
    "depth": lambda broker: broker.depth("cpu"),
    "ping": lambda broker: broker.ping(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "not-connected"])
def test_calls_on_a_frozen_redis_fail_in_time_and_the_next_ones_at_once(
    own_stack: Stack, name: str, is_connected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "_ANSWER_S", 0.5)
    with Broker(own_stack.redis_url) as broker:
        if is_connected:
            CALLS[name](broker)
        with frozen(own_stack, "redis"):
            with Stopwatch() as first, pytest.raises(ServiceUnavailable):
                CALLS[name](broker)
            with Stopwatch() as others:
                for call in CALLS.values():
                    with pytest.raises(ServiceUnavailable, match="gave no answer"):
                        call(broker)
                broker.notify()
    assert first.seconds < 5.0, "one answer is waited for"
    assert others.seconds < len(CALLS) * 0.5 / 2, "and no other"


def test_waiting_for_a_notification_takes_its_time_and_no_more_while_redis_is_frozen(own_stack: Stack) -> None:
    assert 1.5 < broker_module._ANSWER_S < 2.0
    with Broker(own_stack.redis_url) as broker:
        broker.wait_for_notification(0.01)
        with frozen(own_stack, "redis"):
            with Stopwatch() as connected:
                assert not broker.wait_for_notification(0.2)
            broker.notify()
            with Stopwatch() as silent:
                assert not broker.wait_for_notification(0.2)
    assert 0.19 < connected.seconds < 1.5 and 0.19 < silent.seconds < 1.5, "not as long as for an answer"


def test_redis_that_goes_on_is_used_again_after_the_pause(own_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "_ANSWER_S", 0.2)
    monkeypatch.setattr(broker_module, "_PAUSE_S", 0.3)
    with Broker(own_stack.redis_url) as broker:
        with frozen(own_stack, "redis"), pytest.raises(ServiceUnavailable):
            broker.ping()
        with pytest.raises(ServiceUnavailable, match="gave no answer"):
            broker.ping()
        time.sleep(0.3)
        broker.ping()


def test_redis_that_refuses_connections_is_tried_at_each_call(own_stack: Stack) -> None:
    with Broker(own_stack.redis_url) as broker:
        broker.ping()
        own_stack.redis.stop()
        with pytest.raises(ServiceUnavailable):
            broker.ping()
        own_stack.redis.start()
        broker.ping()
        broker.publish([MESSAGE], resource="cpu")
