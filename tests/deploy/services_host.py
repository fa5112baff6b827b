"""The host of the services in the network test: a real PostgreSQL and Redis, at an address that other hosts reach.

`python -m tests.deploy.services_host HOME ADDRESS` prints where both answer, as JSON, and ends with its standard input.
The embedded services listen on loopback, so that a pump in front of each stands for a server that listens for others.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from highnoon.coordinator.local.stack import Stack


def main() -> None:
    """Serves until it is stopped."""
    home, address = Path(sys.argv[1]), sys.argv[2]
    with (
        Stack(home) as stack,
        _reached(stack.database_url, address) as database,
        _reached(stack.redis_url, address) as redis,
    ):
        print(json.dumps({"database": database, "redis": redis}), flush=True)
        sys.stdin.read()


@contextmanager
def _reached(url: str, address: str) -> Iterator[str]:
    """The same service under an address of this host."""
    port = urlsplit(url).port or 0
    with socket.create_server((address, 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
        yield url.replace(f"127.0.0.1:{port}", f"{address}:{listener.getsockname()[1]}")


def _accept(listener: socket.socket, port: int) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
