"""Ports of this machine as tests of several rings need them: a free one, whether one answers, a Redis on one."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from highnoon.coordinator.local.redis_server import redis_binary
from tests.support import eventually


def free_port() -> int:
    """A port without a listener now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def takes_calls(port: int) -> bool:
    """Whether a process listens there, on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def redis_at(port: int, *arguments: str) -> Iterator[None]:
    """A Redis on loopback, started by these arguments and no others."""
    argv = [str(redis_binary()), *arguments, "--port", str(port), "--bind", "127.0.0.1"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: takes_calls(port), what="Redis listens")
            yield
        finally:
            server.terminate()
