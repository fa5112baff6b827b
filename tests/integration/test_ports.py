"""Every port of a running stack, found in /proc and tried by a stranger: nothing answers without a credential."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import psutil
import pytest
from flower import urls

from highnoon.shared.runtime.data_dir import Home
from tests.cluster import HERE, PERIODS
from tests.ports import free_port, redis_at, takes_calls
from tests.stranger import Heard, family_of, hear, listeners, unix_listeners
from tests.support import eventually

TOKEN, METRICS_TOKEN = "operator-token-of-the-scan", "metrics-token-of-the-scan"
OPEN = {
    "dashboard": {"/health", "/login", "/static/app.css"},
    "flower": {"/healthcheck", "/static/css/flower.css"},
}
"""All that a stranger may have: that they are there, the page that asks for the token, and what it looks like."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("ports") / ".highnoon")
    home.prepare()
    return home


@pytest.fixture(scope="module")
def start(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """`start` with all that it can open, its metrics for everybody, in the middle of a study."""
    folder = home.root.parent
    study = {
        "name": "scanned",
        "n_trials": 4,
        "objective": "objectives.py:patient",
        "code_dir": str(HERE),
        "sampler": "random",
        "search_space": {"x": ["uniform", -5.0, 5.0]},
    }
    (folder / "study.json").write_text(json.dumps(study))
    environ = {
        **PERIODS,
        "TEST_GO_FILE": str(folder / "go"),
        "HIGHNOON_TOKEN": TOKEN,
        "HIGHNOON_METRICS_HOST": "0.0.0.0",
        "HIGHNOON_METRICS_TOKEN": METRICS_TOKEN,
        "HIGHNOON_METRICS_PORT": str(home.service("coordinator-metrics").port),
        "HIGHNOON_WORKER_METRICS_PORT": str(home.service("worker-metrics").port),
    }
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "coordinator", "start", "study.json", "--workers", "2"],
            env={**os.environ, **environ},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "2 running" in (folder / "said").read_text(), 90, what="two trials run")
        for name in ("dashboard", "flower"):
            eventually(partial(takes_calls, _port(home, name)), 60, what=f"{name} listens")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def _port(home: Home, name: str) -> int:
    return home.load().services[name].port


@pytest.fixture(scope="module")
def paths(home: Home, start: subprocess.Popen[bytes]) -> list[str]:
    """Every page and every operation of the dashboard and of Flower, with names that exist where they take one."""
    address = f"http://127.0.0.1:{_port(home, 'dashboard')}"
    described = httpx.get(
        f"{address}/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}, timeout=60
    ).raise_for_status()
    api = [re.sub("{.*?}", "1", path.replace("{study}", "scanned")) for path in described.json()["paths"]]
    pages = ["/hpo", "/hpo/new", "/hpo/cluster", "/hpo/studies/scanned", "/docs", "/openapi.json", "/health", "/login"]
    flower = [
        re.sub(r"\(.+?\)", "1", handler[0]).rstrip("$?")
        for handler in urls.handlers
        if isinstance(handler, tuple) and handler[0].startswith("/") and "static" not in handler[0]
    ]
    files = ["/static/app.css", "/static/css/flower.css"]
    found = [*api, *pages, *flower, *files, "/metrics"]
    assert len(found) > 40 and "/api/tasks" in found and "/api/hpo/studies/scanned" in found
    return found


def test_only_what_is_known_listens_and_only_the_metrics_beyond_loopback(
    home: Home, start: subprocess.Popen[bytes]
) -> None:
    ports = {service.port: name for name, service in home.load().services.items()}
    found = {(ports.get(there.port), there.host, there.kind) for there in listeners(family_of(start.pid))}
    loopback = {(name, "127.0.0.1", "tcp") for name in ("postgres", "redis", "dashboard", "flower")}
    assert found == loopback | {(f"{name}-metrics", "0.0.0.0", "tcp") for name in ("coordinator", "worker")}
    assert unix_listeners(family_of(start.pid)) == set()


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("postgres", "postgresql"),
        ("redis", "redis"),
        ("dashboard", "http"),
        ("flower", "http"),
        ("coordinator-metrics", "http"),
        ("worker-metrics", "http"),
    ],
)
def test_no_port_answers_a_stranger(
    home: Home, start: subprocess.Popen[bytes], paths: list[str], name: str, protocol: str
) -> None:
    port = _port(home, name)
    hosts = ["127.0.0.1", *(_own_addresses() if name.endswith("-metrics") else [])]
    for host in hosts:
        assert hear(host, port, paths) == Heard(protocol, frozenset(OPEN.get(name, ()))), host


def test_loopback_services_are_not_there_from_outside(home: Home, start: subprocess.Popen[bytes]) -> None:
    addresses = _own_addresses()
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    for host in addresses:
        for name in ("postgres", "redis", "dashboard", "flower"):
            with socket.socket() as probe:
                assert probe.connect_ex((host, _port(home, name))) != 0, (host, name)


def _own_addresses() -> list[str]:
    """Under which others reach this machine."""
    found = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
    return [one.address for one in found if one.family == socket.AF_INET and not one.address.startswith("127.")]


# --- and strangers have ears ------------------------------------------------------------------------------------------


class _Open(BaseHTTPRequestHandler):
    def do_DELETE(self) -> None:
        self.send_error(401)

    def do_POST(self) -> None:
        self.send_error(204 if self.path == "/other" else 403)

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def _open_http() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Open) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_stranger_hears_what_is_open() -> None:
    with _open_http() as port:
        assert hear("127.0.0.1", port, ["/metrics", "/other"]) == Heard("http", frozenset({"/metrics", "POST /other"}))
    port = free_port()
    with redis_at(port, "--save", ""):
        heard = hear("127.0.0.1", port, [])
        assert heard.protocol == "redis" and {"PING", "INFO", "FLUSHALL"} <= heard.answered
