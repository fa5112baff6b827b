"""A network that is further away: forwards to a server on this machine, each answer later by a fixed time.

A thread for each direction of each connection: a timer of the kernel is exact to a twentieth of a millisecond, where
the loop of asyncio has whole ones. Run by `benchmarks.scale`, with host, port and milliseconds; prints its own port.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress

_PORTION = 1 << 16


def main() -> None:
    """Serves until it is killed."""
    host, port, delay_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            server = socket.create_connection((host, port))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _start(client, server, 0.0)
            _start(server, client, delay_s)


def _start(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    threading.Thread(target=_forward, args=(source, target, delay_s), daemon=True).start()


def _forward(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    with suppress(OSError):
        while portion := source.recv(_PORTION):
            if delay_s:
                time.sleep(delay_s)
            target.sendall(portion)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
