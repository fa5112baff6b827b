"""How many connections a cluster takes of PostgreSQL, and how it works where there are too few: refused, or pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy import make_url, text

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.errors import ServiceRefused, TooManyConnections
from highnoon.shared.domain.states import TrialState
from highnoon.shared.runtime.terminal import Exit
from highnoon.shared.store.access import opened
from highnoon.shared.store.database import Database
from tests import pgbouncer
from tests.cluster import Cluster, running_cluster
from tests.command import caller
from tests.conftest import driverless, empty_database, execute

SLOTS = 4
PRUNED = {"pruner": {"name": "median", "n_startup_trials": 2}}

needs_pgbouncer = pytest.mark.skipif(not pgbouncer.is_installed(), reason="no pgbouncer on PATH")


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(stack, tmp_path_factory.mktemp("cluster"), slots=SLOTS) as cluster:
        yield cluster


def _connections(process: psutil.Process, port: int) -> int:
    """Of one process to PostgreSQL."""
    return sum(bool(one.raddr) and one.raddr.port == port for one in process.net_connections("tcp"))


def test_a_supervisor_has_one_connection_and_its_node_one_more(cluster: Cluster) -> None:
    # Given every slot at work with a sampler that reads the history, a pruner, and reports
    with cluster.books() as books:
        cluster.submit("reports_and_prunes", 24, name="one_each", sampler="tpe", **PRUNED)
        books.wait_until_over("one_each")
        books.assert_balanced("one_each", 24)
        pids = {attempt.pid for attempt in books.attempts("one_each")}

    # Then each process of the node has one connection at most, and only supervisors and the agent have one
    node = psutil.Process(cluster.latest("workers").pid)
    port = int(make_url(cluster.database_url).port or 0)
    counted = {process.pid: _connections(process, port) for process in (node, *node.children(recursive=True))}
    holders = Counter({pid: count for pid, count in counted.items() if count})
    assert set(holders) <= {node.pid, *pids}
    assert set(holders.values()) == {1}


@pytest.fixture
def limited(stack: Stack, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose role may have room for the coordinator, an agent and one slot."""
    with empty_database(stack) as url:
        name = make_url(url).database
        execute(stack, f"CREATE ROLE {name} LOGIN PASSWORD 'few'")
        execute(stack, f"ALTER DATABASE {name} OWNER TO {name}")
        few = make_url(url).set(username=name, password="few")
        cluster = Cluster(few.render_as_string(hide_password=False), stack.redis_url, tmp_path)
        try:
            yield cluster
        finally:
            cluster.stop()
            print(cluster.logs())
            execute(stack, f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
    execute(stack, f"DROP ROLE {name}")


def _limit(stack: Stack, cluster: Cluster, count: int) -> None:
    execute(stack, f"ALTER ROLE {make_url(cluster.database_url).username} CONNECTION LIMIT {count}")


def test_a_cluster_works_with_too_few_connections_and_says_what_to_do(
    limited: Cluster, stack: Stack, redis_url: str
) -> None:
    # Given room for fewer connections than there are slots
    limited.submit_here("slow", 12, name="few")
    with limited.books() as books:
        _limit(stack, limited, 9)
        limited.start_coordinator()
        node = limited.start_worker(slots=8)

        # Then the study ends, and no attempt is charged
        books.wait_until_over("few")
        books.assert_balanced("few", 12)
        assert [attempt.attempt for attempt in books.attempts("few")] == [1] * 12

        # And each process has logged once what it needs, and no task has raised
        log = (limited.folder / f"workers-{limited.processes.index(node)}.log").read_text()
        refused = [line for line in log.splitlines() if "too many connections for role" in line]
        assert refused and "A node takes one connection for each slot" in refused[0]
        assert len(refused) <= 9, refused
        assert "Traceback" not in log and "start_failed" not in log

        # When there is room, then the other slots work as well
        before = {attempt.pid for attempt in books.attempts("few")}
        _limit(stack, limited, -1)
        limited.submit_here("slow", 40, name="many")
        books.wait_until_over("many")
        assert {attempt.pid for attempt in books.attempts("many")} > before


def test_a_full_server_is_an_outage_with_a_remedy(limited: Cluster, stack: Stack) -> None:
    _limit(stack, limited, 0)
    database = Database(limited.database_url)
    with pytest.raises(TooManyConnections, match="raise the CONNECTION LIMIT of its role, run"):
        database.check_schema()


@needs_pgbouncer
def test_a_cluster_works_behind_pgbouncer_in_transaction_mode(stack: Stack, tmp_path: Path, redis_url: str) -> None:
    # Given fewer connections to the server than processes that use them
    with empty_database(stack) as url, pgbouncer.pooled(url, default_pool_size="2") as pooled:
        cluster = Cluster(pooled, stack.redis_url, tmp_path)
        try:
            # Then tables are made, studies submitted, sampled, pruned, and read
            cluster.submit_here("reports_and_prunes", 24, name="pooled", sampler="tpe", **PRUNED)
            cluster.start_coordinator()
            cluster.start_worker(slots=SLOTS)
            with cluster.books() as books:
                books.wait_until_over("pooled")
                books.assert_balanced("pooled", 24)
                assert {attempt.attempt for attempt in books.attempts("pooled")} == {1}
                states = {trial.state for trial in books.trials("pooled")}
                assert states <= {TrialState.COMPLETE, TrialState.PRUNED}
            assert cluster.cli("trials", "pooled").returncode == 0
            with psycopg2.connect(driverless(url)) as direct, direct.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
                assert cursor.fetchone() <= (3,)
        finally:
            cluster.stop()
            print(cluster.logs())


@needs_pgbouncer
def test_deadlines_hold_behind_pgbouncer(stack: Stack) -> None:
    # Given limits of the role or database, since PgBouncer leaves out those of the connection
    with empty_database(stack) as url:
        name = make_url(url).database
        execute(stack, f"ALTER DATABASE {name} SET statement_timeout = '7s'")
        with pgbouncer.pooled(url, default_pool_size="1") as pooled:
            database = Database(pooled)
            assert database.call(text("SHOW statement_timeout")) == "7s"
            database.close()


@needs_pgbouncer
def test_a_full_pgbouncer_is_an_outage_with_a_remedy(postgres_url: str) -> None:
    with pgbouncer.pooled(postgres_url, max_client_conn="1") as pooled:
        first, second = Database(pooled), Database(pooled)
        assert first.call(text("SELECT 1")) == 1
        with pytest.raises(TooManyConnections, match="raise max_client_conn of PgBouncer"):
            second.call(text("SELECT 1"))
        first.close()


@needs_pgbouncer
def test_a_pgbouncer_that_refuses_our_options_is_named(postgres_url: str) -> None:
    remedy = pytest.raises(ServiceRefused, match="set ignore_startup_parameters = options in")
    with pgbouncer.pooled(postgres_url, ignore_startup_parameters="") as pooled, remedy:
        Database(pooled).call(text("SELECT 1"))


@needs_pgbouncer
def test_the_doctor_finds_connections_without_deadlines(
    postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pgbouncer.pooled(postgres_url) as pooled, opened(pooled, create=True):
        doctor = caller(monkeypatch, capsys)
        answer = doctor("doctor", HIGHNOON_DATABASE_URL=pooled, HIGHNOON_REDIS_URL=redis_url)
    assert answer.code == Exit.SERVICE
    assert "lock_timeout is 0 for this role" in answer.out
