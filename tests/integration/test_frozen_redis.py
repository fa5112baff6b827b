"""A Redis that is stopped (it still accepts connections, and answers nothing) delays nothing but its own messages."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from highnoon.coordinator.local.stack import Stack
from highnoon.coordinator.queue_client import QueueClient
from highnoon.coordinator.service import HEALTH_FILE, Service
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.runtime import broker as broker_module
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.control import Control
from highnoon.shared.store.nodes import Nodes
from tests.conftest import SHORT_PERIODS, new_stack
from tests.frozen import Stopwatch, frozen
from tests.support import eventually


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with new_stack() as stack:
        yield stack


@pytest.fixture
def access(own_stack: Stack) -> Iterator[Access]:
    with opened(own_stack.database_url, create=True) as access:
        yield access


def test_ticks_go_on_and_leadership_stays_while_redis_is_frozen(
    own_stack: Stack, access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "_ANSWER_S", 8.0)  # what a tick that waits for Redis would take at least
    # Given a coordinator that serves a study, and a node
    settings = load_settings(
        {},
        database_url=own_stack.database_url,
        redis_url=own_stack.redis_url,
        home=tmp_path,
        **{**SHORT_PERIODS, "presence_s": 60.0, "leader_ttl_s": 5.0},
    )
    nodes, control = Nodes(access.database), Control(access.database)
    nodes.enter("anna", host="node-a", pid=1, slots=2, queues=["cpu"])
    optuna_id = access.store.create_study("digits", "minimize")
    record = access.studies.create("digits", SPEC, queue="cpu", n_trials=100, optuna_study_id=optuna_id)
    stopping = threading.Event()
    with Broker(own_stack.redis_url) as broker:
        service = Service(settings, database=access.database, broker=broker)
        thread = threading.Thread(target=service.serve, args=(stopping,))
        thread.start()
        try:
            eventually(lambda: broker.depth("cpu") == 10, what="messages are sent")

            # When Redis is frozen for longer than a lease, and a ticket waits that could be dispatched
            with frozen(own_stack, "redis"):
                control.stop(record.id, "nothing", spec_version=record.spec_version)
                ages = [_age_of_health_file(tmp_path) for _ in _seconds(7.0)]
                lead = nodes.lead("another", ttl_s=1.0)

            # Then each tick was on time, and the study was closed meanwhile
            assert max(ages) < 5.0, "a tick waited for Redis"
            assert not lead.mine, "leadership was lost"
            assert access.studies.get("digits").is_over
        finally:
            began = time.monotonic()
            stopping.set()
            service.wake()
            thread.join()
        assert time.monotonic() - began < 30.0


def test_frozen_redis_counts_as_away_until_it_answers_again(own_stack: Stack) -> None:
    with Broker(own_stack.redis_url) as broker, redis.Redis.from_url(own_stack.redis_url) as client:
        client.flushall()
        queues = QueueClient(broker)
        assert queues.depths() == {"cpu": 0, "gpu": 0}
        with frozen(own_stack, "redis"):
            with Stopwatch() as watch:
                queues.publish([RunTrial(study="digits", ticket=1)], resource="cpu")
                assert queues.depths() == {"cpu": 0, "gpu": 0}, "as before: it may be slow only"
            assert watch.seconds < 1.5, "less than Redis may take"
            eventually(lambda: queues.depths() is None, 5.0, what="it counts as away")
        eventually(lambda: queues.depths() is not None, 10.0, what="it is back")
        queues.publish([RunTrial(study="digits", ticket=2)], resource="cpu")
        eventually(lambda: (queues.depths() or {"cpu": 0})["cpu"] > 0, 5.0, what="messages are sent again")
        queues.close()


def test_ticket_that_is_tried_again_goes_before_those_that_wait(own_stack: Stack) -> None:
    with Broker(own_stack.redis_url) as broker, redis.Redis.from_url(own_stack.redis_url) as client:
        client.flushall()
        broker.publish([RunTrial(study="digits", ticket=number) for number in (1, 2, 3)], resource="cpu")
        broker.publish([RunTrial(study="digits", ticket=4)], resource="cpu", first=True)
        # Several at once stay in their order
        broker.publish([RunTrial(study="digits", ticket=number) for number in (5, 6, 7)], resource="cpu", first=True)
        messages = [json.loads(client.rpop("highnoon.cpu"))["headers"]["kwargsrepr"] for _ in range(7)]
        assert messages == [f"digits, ticket {number}" for number in (5, 6, 7, 4, 1, 2, 3)]


def test_account_that_may_not_reorder_a_queue_sends_to_its_end(own_stack: Stack) -> None:
    with redis.Redis.from_url(own_stack.redis_url) as client:
        client.flushall()
        client.acl_setuser(
            "older", enabled=True, passwords=["+p"], keys=["*"], channels=["*"], commands=["+@all", "-lpop"]
        )
        host = client.get_connection_kwargs()["host"], client.get_connection_kwargs()["port"]
        with Broker("redis://older:p@{}:{}/0".format(*host)) as broker:
            for number in (1, 2):
                broker.publish([RunTrial(study="digits", ticket=number)], resource="cpu", first=True)
        client.acl_deluser("older")
        messages = [json.loads(client.rpop("highnoon.cpu"))["headers"]["kwargsrepr"] for _ in range(2)]
        assert messages == ["digits, ticket 1", "digits, ticket 2"]


SPEC = {
    "name": "digits",
    "objective": "tests.objectives:noop",
    "search_space": {"x": ["uniform", 0.0, 1.0]},
    "direction": "minimize",
    "n_trials": 100,
}


def _seconds(duration_s: float) -> Iterator[None]:
    deadline = time.monotonic() + duration_s
    while time.monotonic() < deadline:
        yield
        time.sleep(0.05)


def _age_of_health_file(home: Path) -> float:
    return time.time() - (home / HEALTH_FILE).stat().st_mtime
