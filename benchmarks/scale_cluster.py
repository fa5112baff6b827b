"""The cluster that `benchmarks.scale` measures: real services, made-up nodes, simulated slots, a network between."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import make_url, text

from benchmarks.roles import Role, postgres_of, redis_of
from benchmarks.simulated_slots import Task
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.nodes import Nodes
from tests.ports import free_port

_SLOTS_OF_A_NODE = 20
_SLOTS_OF_A_PROCESS = 25
"""Threads of one process wait for one another while one samples; more processes take more memory."""

_BEAT_S = 5.0


class Cluster:
    """The services and processes that all scenarios share."""

    def __init__(self, stack: Stack, ends: ExitStack) -> None:
        self.stack = stack
        self.access: Access = ends.enter_context(opened(stack.database_url, create=True))
        self.metrics_port, self.page_port = free_port(), free_port()
        environ = {
            **os.environ,
            "HIGHNOON_DATABASE_URL": stack.database_url,
            "HIGHNOON_REDIS_URL": stack.redis_url,
            "HIGHNOON_HOME": str(stack.home.root / "of-processes"),
            "HIGHNOON_METRICS_PORT": str(self.metrics_port),
            "HIGHNOON_OBJECTIVES": str(Path(__file__).parent / "*.py"),
        }
        self.begin = begin = ends.enter_context(_processes(environ, stack.home.root / "processes.log"))
        self.roles = {
            "PostgreSQL": Role(process=postgres_of(stack)),
            "Redis": Role(process=redis_of(stack)),
            "coordinator": Role(process=begin(sys.executable, "-m", "coordinator", "start")),
            "dashboard": Role(
                process=begin(sys.executable, "-m", "highnoon.webui", "--port", str(self.page_port)),
            ),
        }

    def tick_sums(self) -> tuple[float, float]:
        """Seconds and number of the coordinator's ticks so far."""
        found = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text
        name = "highnoon_coordinator_tick_seconds_"
        total, count = (re.search(rf"^{name}{part} ([0-9.e+-]+)", found, re.M) for part in ("sum", "count"))
        return (float(total[1]), float(count[1])) if total and count else (0.0, 0.0)

    def connections(self) -> int:
        """To PostgreSQL, of all clients."""
        statement = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return int(self.access.database.call(text(statement)))

    def has_page(self, study: str) -> bool:
        """Whether the dashboard shows the study already."""
        with suppress(httpx.HTTPError):
            self.page_s(study)
            return True
        return False

    def page_s(self, study: str) -> float:
        """How long the study's page takes now."""
        began = time.perf_counter()
        address = f"http://127.0.0.1:{self.page_port}/hpo/studies/{study}"
        httpx.get(address, headers={"accept": "text/html"}, timeout=120).raise_for_status()
        return time.perf_counter() - began


@contextmanager
def simulated_slots(
    cluster: Cluster, *, slots: int, latency_ms: float, trial_s: float, measure_s: float
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes with so many slots, on made-up nodes that are `latency_ms` away from PostgreSQL; all are at work."""
    with ExitStack() as ends:
        worker_ids = ends.enter_context(_made_up_nodes(cluster.access, slots))
        address = ends.enter_context(_distant_postgres(cluster.stack.database_url, latency_ms))
        children = []
        for first in range(0, len(worker_ids), _SLOTS_OF_A_PROCESS):
            task = Task(
                database_url=address,
                redis_url=cluster.stack.redis_url,
                worker_ids=tuple(worker_ids[first : first + _SLOTS_OF_A_PROCESS]),
                trial_s=trial_s,
                report_s=1.0,
                measure_s=measure_s,
            )
            children.append(ends.enter_context(_slots_process(task)))
        for child in children:
            _expect_ready(child)
        yield children


@contextmanager
def _made_up_nodes(access: Access, slots: int) -> Iterator[list[str]]:
    """Rows of nodes that renew their presence; yields the node of each slot."""
    nodes, stopping = Nodes(access.database), threading.Event()
    sizes = [min(_SLOTS_OF_A_NODE, slots - first) for first in range(0, slots, _SLOTS_OF_A_NODE)]
    ids = [f"{number:032x}" for number in range(len(sizes))]

    def beat() -> None:
        while not stopping.wait(_BEAT_S):
            for worker_id in ids:
                nodes.beat(worker_id)

    for worker_id, size in zip(ids, sizes, strict=True):
        nodes.enter(worker_id, host="simulated", pid=1, slots=size, queues=["cpu"])
    beating = threading.Thread(target=beat)
    beating.start()
    try:
        yield [worker_id for worker_id, size in zip(ids, sizes, strict=True) for _ in range(size)]
    finally:
        stopping.set()
        beating.join()
        with access.database.transaction() as connection:
            connection.execute(text("DELETE FROM hn_workers"))


@contextmanager
def _distant_postgres(database_url: str, latency_ms: float) -> Iterator[str]:
    """The address of PostgreSQL behind a network."""
    address = make_url(database_url)
    command = [sys.executable, "-m", "benchmarks.delaying_proxy", str(address.host), str(address.port), str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            port = int(proxy.stdout.readline())
            yield address.set(port=port, query={"sslmode": "disable"}).render_as_string(hide_password=False)
        finally:
            proxy.terminate()


@contextmanager
def _slots_process(task: Task) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.simulated_slots"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            _send(child, task.to_json())
            yield child
        finally:
            child.kill()


@contextmanager
def _processes(environ: Mapping[str, str], log: Path) -> Iterator[Any]:
    """Starts processes that end with this block."""
    with ExitStack() as ends:
        stream = ends.enter_context(log.open("wb"))

        def begin(*command: str) -> psutil.Popen:
            process = psutil.Popen(command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
            ends.callback(process.wait)
            ends.callback(process.terminate)
            return process

        yield begin


def start_measuring(child: subprocess.Popen[str]) -> None:
    """Makes the process start its measurement, whose duration is part of its task."""
    _send(child, "measure")


def measured_by(child: subprocess.Popen[str]) -> dict[str, Any]:
    """What the process has measured, once its time is over."""
    assert child.stdout is not None
    found: dict[str, Any] = json.loads(child.stdout.readline())
    return found


def _send(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def _expect_ready(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    if child.stdout.readline().strip() != "ready":
        raise RuntimeError("a process of simulated slots has ended")
