"""Three hosts, as network namespaces on a bridge: services and coordinator on one, a worker on each of the others.

One host is cut off in the middle of its trials and joined again. Root only; skipped with a word elsewhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from shared.ledger import Database, Nodes
from shared.ledger.schema import attempts
from tests.cluster import Cluster
from tests.support import eventually

HUB = "10.77.0.1"
BRIDGE = "hnbridge"
HOSTS = {"hn-a": "10.77.0.2", "hn-b": "10.77.0.3"}
TRIALS = 16


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _why_not() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    probe = subprocess.run(["ip", "netns", "add", "hn-probe"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", "hn-probe"], capture_output=True)
    return "" if probe.returncode == 0 else f"no network namespaces here: {probe.stderr.strip()}"


@dataclass(frozen=True)
class Net:
    """The switch between the hosts."""

    def cut(self, host: str) -> None:
        """As if somebody pulled the cable: nothing is closed, nothing arrives."""
        _ip("link", "set", host, "down")

    def join(self, host: str) -> None:
        _ip("link", "set", host, "up")


@pytest.fixture
def net() -> Iterator[Net]:
    why_not = _why_not()
    if why_not:
        pytest.skip(why_not)
    _clear()
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{HUB}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for host, address in HOSTS.items():
            _ip("netns", "add", host)
            _ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("link", "set", host, "master", BRIDGE, "up")
            _ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", host, "link", "set", device, "up")
        yield Net()
    finally:
        _clear()


def _clear() -> None:
    for host in HOSTS:
        subprocess.run(["ip", "netns", "delete", host], capture_output=True)
        subprocess.run(["ip", "link", "delete", host], capture_output=True)
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)


@contextmanager
def _on_the_hub(port: int) -> Iterator[int]:
    """A loopback service of this machine, reachable at the hub's address: the embedded ones listen nowhere else."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server((HUB, 0)))

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection(("127.0.0.1", port))
                    for source, target in ((near, far), (far, near)):
                        threading.Thread(target=_pump, args=(source, target), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _worker(cluster: Cluster, host: str, addresses: dict[str, str]) -> None:
    home = cluster.folder / host
    with (cluster.folder / f"{host}.log").open("wb") as log:
        cluster.processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", host, sys.executable, "-m", "workers", "start", "--slots", "2"],
                env={**cluster._environ(), **addresses, "HIGHNOON_HOME": str(home), "HIGHNOON_OBJECTIVES": "*"},
                cwd=cluster.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )


def _runs_a_trial(home: Path) -> bool:
    return any('"trial_group": null' not in note.read_text() for note in home.glob("nodes/*/slots/*.json"))


def test_a_host_that_is_cut_off_and_comes_back_costs_no_trial(
    net: Net, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Given trials on two hosts, when one loses its network for longer than a lease, then all are counted once."""
    cluster = Cluster(postgres_url, redis_url, tmp_path)
    with ExitStack() as opened:
        opened.callback(cluster.stop)
        ports = [opened.enter_context(_on_the_hub(urlsplit(url).port or 0)) for url in (postgres_url, redis_url)]
        addresses = {
            name: url.replace(f"127.0.0.1:{urlsplit(url).port}", f"{HUB}:{port}")
            for name, url, port in zip(
                ("HIGHNOON_DATABASE_URL", "HIGHNOON_REDIS_URL"), (postgres_url, redis_url), ports, strict=True
            )
        }
        cluster.start_coordinator()
        for host in HOSTS:
            _worker(cluster, host, addresses)
        database = Database(postgres_url)
        opened.callback(database.close)
        nodes = Nodes(database)
        eventually(lambda: cluster.logs().count("action=enter") == 2, 60, what="both hosts are there")
        name = cluster.submit_here("slow", TRIALS, name="cut")

        eventually(lambda: _runs_a_trial(tmp_path / "hn-a"), 30, what="a trial runs on the first host")
        net.cut("hn-a")
        eventually(lambda: _lost(database), 30, what="the leases of the host that is away ran out")
        net.join("hn-a")

        with cluster.books() as books:
            books.wait_until_over(name, 60)
            eventually(lambda: len(nodes.workers(silent_for_s=2.0)) == 2, 60, what="the host is back")
            books.assert_balanced(name, TRIALS)


def _lost(database: Database) -> bool:
    with database.transaction() as connection:
        return connection.scalar(select(attempts.c.ticket_id).where(attempts.c.ending == "lost").limit(1)) is not None
