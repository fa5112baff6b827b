"""Three hosts, as network namespaces on a switch: services and coordinator on one, a worker on each of the others.

One host is cut off in the middle of its trials and joined again. The test observes from this machine, at a port of the
switch, which has a namespace of its own: a firewall of this machine (for example Docker's) does not filter it. Root
only; skipped elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from highnoon.shared.domain.states import Ending
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.schema import attempts
from highnoon.workers.slot_state import SlotStates
from tests.cluster import Books, Cluster
from tests.support import eventually, steady_network

ROOT = Path(__file__).parents[2]
OWN = f"hn{os.getpid()}"
NET = f"10.77.{os.getpid() % 256}"
"""Of this process alone: namespaces, devices of this machine and routes are everybody's."""

SWITCH, OPERATOR, OPERATORS_ADDRESS = f"{OWN}-switch", f"{OWN}-op", f"{NET}.1/24"
SERVICES, WORKERS = f"{OWN}-s", (f"{OWN}-a", f"{OWN}-b")
HOSTS = {host: f"{NET}.{number}" for number, host in enumerate((SERVICES, *WORKERS), start=2)}
TRIALS = 16


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _why_not() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    probe = subprocess.run(["ip", "netns", "add", SWITCH], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", SWITCH], capture_output=True)
    return "" if probe.returncode == 0 else f"no network namespaces here: {probe.stderr.strip()}"


@dataclass(frozen=True)
class Net:
    """The switch between the hosts."""

    def cut(self, host: str) -> None:
        """As if the cable were pulled: nothing is closed, nothing arrives."""
        _ip("-n", SWITCH, "link", "set", host, "down")

    def join(self, host: str) -> None:
        _ip("-n", SWITCH, "link", "set", host, "up")


@pytest.fixture
def net() -> Iterator[Net]:
    why_not = _why_not()
    if why_not:
        pytest.skip(why_not)
    with steady_network():
        yield from _made()


def _made() -> Iterator[Net]:
    _clear()
    try:
        for namespace in (SWITCH, *HOSTS):
            _ip("netns", "add", namespace)
        _ip("-n", SWITCH, "link", "add", "bridge", "type", "bridge")
        _ip("-n", SWITCH, "link", "set", "bridge", "up")
        _ip("link", "add", OPERATOR, "type", "veth", "peer", "name", OPERATOR, "netns", SWITCH)
        _ip("addr", "add", OPERATORS_ADDRESS, "dev", OPERATOR)
        _ip("link", "set", OPERATOR, "up")
        for host, address in HOSTS.items():
            _ip("-n", SWITCH, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", host, "link", "set", device, "up")
        for port in (OPERATOR, *HOSTS):
            _ip("-n", SWITCH, "link", "set", port, "master", "bridge", "up")
        yield Net()
    finally:
        _clear()


def _clear() -> None:
    for namespace in (SWITCH, *HOSTS):
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
    subprocess.run(["ip", "link", "delete", OPERATOR], capture_output=True)


def _on(host: str, *arguments: str) -> list[str]:
    return ["ip", "netns", "exec", host, sys.executable, "-m", *arguments]


@contextmanager
def _services(folder: Path) -> Iterator[dict[str, str]]:
    """The addresses of PostgreSQL and Redis on their host, as the others reach them."""
    argv = _on(SERVICES, "tests.deploy.services_host", str(folder / SERVICES), HOSTS[SERVICES])
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


@pytest.fixture
def cluster(net: Net, tmp_path: Path) -> Iterator[Cluster]:
    """A coordinator beside the services, and a node on each of the other hosts."""
    with _services(tmp_path) as addresses:
        cluster = Cluster(addresses["database"], addresses["redis"], tmp_path)
        try:
            _start(cluster, SERVICES, "coordinator", "start")
            for host in WORKERS:
                _start(cluster, host, "workers", "start", "--slots", "2")
            yield cluster
        finally:
            cluster.stop()
            print(cluster.logs())


def _start(cluster: Cluster, host: str, *arguments: str) -> None:
    with (cluster.folder / f"{host}.log").open("wb") as log:
        cluster.processes.append(
            subprocess.Popen(
                _on(host, *arguments),
                env={**cluster._environ(), "HIGHNOON_HOME": str(cluster.folder / f"home-{host}")},
                cwd=cluster.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )


def _runs_a_trial(cluster: Cluster, host: str) -> bool:
    folders = (cluster.folder / f"home-{host}").glob("nodes/*/slots")
    return any(state.trial_group is not None for folder in folders for state in SlotStates(folder.parent).states())


def test_a_host_that_is_cut_off_and_comes_back_costs_no_trial(net: Net, cluster: Cluster) -> None:
    """Given trials on two hosts, when one loses its network for longer than a lease, then all are counted once."""
    eventually(lambda: cluster.logs().count("action=enter") == 2, 60, what="both nodes are there")
    name = cluster.submit_here("slow", TRIALS, name="cut")
    with cluster.books() as books:
        eventually(lambda: _runs_a_trial(cluster, WORKERS[0]), 30, what="a trial runs on the first host")
        net.cut(WORKERS[0])
        eventually(lambda: _lost(books), 30, what="the leases of the host that is away ran out")
        before = books.closed(name)
        eventually(lambda: books.closed(name) > before, 30, what="the other host goes on")
        net.join(WORKERS[0])

        books.wait_until_over(name)
        books.assert_balanced(name, TRIALS)
        ended = Counter(attempt.ending for attempt in books.studies.attempts(books.studies.get(name).id))
        assert ended[Ending.COMPLETED] == TRIALS and ended[Ending.LOST] in (1, 2), ended
    database = Database(cluster.database_url)
    eventually(lambda: len(Nodes(database).workers(silent_for_s=2.0)) == 2, 60, what="the host is back")
    database.close()


def _lost(books: Books) -> bool:
    with books.transaction() as connection:
        return connection.scalar(select(attempts.c.ticket_id).where(attempts.c.ending == "lost").limit(1)) is not None
