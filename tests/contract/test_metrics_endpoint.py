"""Who may read the metrics, and how a node's supervisors reach them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.lease import Disposition
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.metrics_endpoint import exposed
from highnoon.shared.runtime.settings import load_settings
from highnoon.workers.node import Node
from highnoon.workers.node_metrics import NodeMetrics
from highnoon.workers.telemetry import AttemptMetrics, Telemetry, inbox, received
from tests.support import eventually

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("highnoon_tests", "Tests.", registry=registry).inc(3)
    return registry


@pytest.fixture(scope="module")
def port(registry: CollectorRegistry) -> Iterator[int]:
    with exposed(registry, host="127.0.0.1", port=0, key="PORT", token=None) as port:
        yield port


@pytest.fixture(scope="module")
def guarded_port(registry: CollectorRegistry) -> Iterator[int]:
    with exposed(registry, host="127.0.0.1", port=0, key="PORT", token=TOKEN) as port:
        yield port


def get(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.request(method, f"http://127.0.0.1:{port}{path}", headers=headers)


def test_loopback_is_open_under_its_own_names_only(port: int) -> None:
    assert "highnoon_tests_total 3.0" in get(port).text
    for name in ("localhost", f"localhost:{port}", "[::1]:9100", "127.0.0.1"):
        assert get(port, host=name).status_code == 200, name
    for name in ("evil.example", "127.0.0.1.evil.example:9100", "[", "10.0.0.7"):
        answer = get(port, host=name)
        assert answer.status_code == 421 and "highnoon_tests" not in answer.text, name


def test_nothing_but_reading_metrics_is_possible(port: int) -> None:
    assert get(port, "/").status_code == 404 and get(port, "/metrics/..").status_code == 404
    assert get(port, method="POST").status_code == 405


@pytest.mark.parametrize("credential", ["", TOKEN, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer \udcff"])
def test_beyond_loopback_only_the_token_opens(guarded_port: int, credential: str) -> None:
    answer = httpx.get(
        f"http://127.0.0.1:{guarded_port}/metrics",
        headers=[(b"authorization", credential.encode("utf-8", "surrogateescape"))],
        timeout=60,
    )
    assert answer.status_code == 401 and "highnoon_tests" not in answer.text


def test_the_token_opens_under_any_name(guarded_port: int) -> None:
    answer = get(guarded_port, host="node-7.cluster", authorization=f"Bearer {TOKEN}")
    assert answer.status_code == 200 and "highnoon_tests_total 3.0" in answer.text


def test_a_port_in_use_is_an_error_that_names_the_setting(registry: CollectorRegistry) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidInput, match=f"HIGHNOON_METRICS_PORT: cannot listen on 127.0.0.1 .*{port}"),
            exposed(registry, host="127.0.0.1", port=port, key="HIGHNOON_METRICS_PORT", token=None),
        ):
            pass


def test_two_scrapes_at_a_time_are_collected_one_after_the_other() -> None:
    class Slow(Collector):
        running = most = 0

        def describe(self) -> Iterable[Metric]:
            return ()

        def collect(self) -> Iterable[Metric]:
            self.running += 1
            self.most = max(self.most, self.running)
            threading.Event().wait(0.1)
            self.running -= 1
            return ()

    registry, slow = CollectorRegistry(), Slow()
    registry.register(slow)
    with exposed(registry, host="127.0.0.1", port=0, key="PORT", token=None) as port, ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: get(port).status_code, range(4)))
    assert (answers, slow.most) == ([200] * 4, 1)


def test_idle_connections_take_no_more_than_some_threads_and_descriptors(registry: CollectorRegistry) -> None:
    with exposed(registry, host="127.0.0.1", port=0, key="PORT", token=TOKEN) as port, ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(80)]
        threads: list[int] = []

        def most_are_refused() -> bool:
            threads.append(threading.active_count())
            return sum(map(_is_closed, idle)) >= 30

        eventually(most_are_refused, 60, what="further connections are closed")
    assert max(threads) <= 50


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_forked_supervisors_report_to_one_agent_with_any_length_of_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40) / "node"
    folder.mkdir(parents=True)
    with inbox(folder) as receiver:
        children = []
        for number in range(3):
            if (pid := os.fork()) == 0:
                telemetry = Telemetry(folder)
                with telemetry.attempt():
                    with telemetry.step("ask"):
                        pass
                    outcome = Outcome(ending=Ending.COMPLETED, duration_s=float(number))
                    telemetry.decided(outcome, Disposition.CLOSE, "FAIL" if number == 1 else None)
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        reports = received(receiver)
        heard = [next(reports) for _ in children]
    assert {note.duration_s for note in heard} == {0.0, 1.0, 2.0}
    assert all(note.ending == "completed" and set(note.steps_s) == {"ask"} for note in heard)
    assert list(reports) == [], "the end of the inbox ends its reader"

    registry = CollectorRegistry()
    settings = load_settings({}, home=tmp_path)
    counts = NodeMetrics(Node(slots=1, resources=("cpu",), settings=settings), registry)
    for note in heard:
        counts.count(note)
    assert registry.get_sample_value("highnoon_worker_ended_by_others_total") == 1

    # And only a cause of memory is a memory stop, and no text of an objective a label
    for cause in ("param_budget", "diverged at step 7", "diverged at step 8", "memory_guard"):
        counts.count(AttemptMetrics(ending="stopped", cause=cause))
    stops = [metric for metric in registry.collect() if metric.name == "highnoon_worker_memory_stops"]
    assert {sample.labels["cause"] for metric in stops for sample in metric.samples} == {"memory_guard"}
    others = {"ending": "stopped", "cause": "other"}
    assert registry.get_sample_value("highnoon_worker_attempts_total", others) == 2
    budget = {"ending": "stopped", "cause": "param_budget"}
    assert registry.get_sample_value("highnoon_worker_attempts_total", budget) == 1


def test_supervisor_without_an_agent_does_not_wait(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone", None):
        with Telemetry(folder).attempt():
            pass
