"""A database that is frozen (SIGSTOP) delays neither the health file of a node nor its drain."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.store.access import opened
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes
from tests.cluster import PERIODS, Cluster
from tests.conftest import new_stack
from tests.frozen import Stopwatch, frozen
from tests.support import eventually

PRESENCE_S = float(PERIODS["HIGHNOON_PRESENCE_S"])


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with new_stack() as stack:
        yield stack


@pytest.fixture
def cluster(own_stack: Stack, tmp_path: Path) -> Iterator[Cluster]:
    with opened(own_stack.database_url, create=True):
        pass
    cluster = Cluster(own_stack.database_url, own_stack.redis_url, tmp_path)
    yield cluster
    cluster.stop()
    print(cluster.logs())


def _health_file(cluster: Cluster) -> Path:
    return eventually(lambda: [*cluster.folder.glob("home/nodes/*/health")], 30, what="a node is healthy")[0]


def _drained_s(cluster: Cluster) -> float:
    node = cluster.processes[-1]
    with Stopwatch() as watch:
        node.send_signal(signal.SIGTERM)
        assert node.wait(120) == 0
    return watch.seconds


def test_frozen_database_delays_no_sign_of_health_and_no_drain(own_stack: Stack, cluster: Cluster) -> None:
    # Given how long a drain takes normally
    database = Database(own_stack.database_url)
    nodes = Nodes(database)
    cluster.start_worker(slots=1)
    eventually(lambda: nodes.workers(silent_for_s=5.0), 30, what="the node has entered")
    normal_s = _drained_s(cluster)

    # When the database is frozen under another node
    cluster.start_worker(slots=1)
    eventually(lambda: nodes.workers(silent_for_s=5.0), 30, what="the node has entered")
    health = _health_file(cluster)
    with frozen(own_stack, "postgres"):
        oldest_s = 0.0
        until = time.monotonic() + 15.0
        while time.monotonic() < until:
            oldest_s = max(oldest_s, time.time() - health.stat().st_mtime)
            time.sleep(0.05)
        drained_s = _drained_s(cluster)

    # Then its monitor went on, and its drain took two seconds more at most
    assert oldest_s < PRESENCE_S + 8.0, "not as long as the database was frozen"
    assert drained_s < 3 * normal_s + 6.0, (drained_s, normal_s)
    database.close()


def test_node_that_starts_while_the_database_is_frozen_enters_when_it_answers(
    own_stack: Stack, cluster: Cluster
) -> None:
    database = Database(own_stack.database_url)
    with frozen(own_stack, "postgres"):
        cluster.start_worker(slots=1)
        assert time.time() - _health_file(cluster).stat().st_mtime < 30
        time.sleep(6)
    eventually(lambda: Nodes(database).workers(silent_for_s=5.0), 30, what="the node has entered")
    database.close()
