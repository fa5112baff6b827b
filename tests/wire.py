"""Counts round trips where they happen: a proxy in front of PostgreSQL that reads the protocol's messages."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import make_url


class Wire:
    """The statements that passed since `clear`, BEGIN and COMMIT among them: each is one round trip."""

    def __init__(self, url: str) -> None:
        self.statements: list[str] = []
        target = make_url(url)
        self._target = (target.query.get("host") or target.host, target.port or 5432)
        self._server = socket.create_server(("127.0.0.1", 0))
        address = target.set(host="127.0.0.1", port=self._server.getsockname()[1], query={"sslmode": "disable"})
        self.url = address.render_as_string(hide_password=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def clear(self) -> None:
        self.statements.clear()

    @property
    def commits(self) -> int:
        """Transactions that wrote: explicit ones, and calls of our functions on their own; a look writes nothing."""
        explicit = sum(text.upper().startswith("COMMIT") for text in self.statements)
        calls = [text for text in self.statements if text.lower().startswith("select hn_")]
        return explicit + sum("hn_look_" not in text for text in calls)

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = self._connect()
            threading.Thread(target=self._count, args=(client, server), daemon=True).start()
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._target
        if str(host).startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((str(host), int(str(port))))

    def _count(self, client: socket.socket, server: socket.socket) -> None:
        stream = client.makefile("rb")
        size = stream.read(4)
        while size:  # the startup message alone has no kind
            body = stream.read(struct.unpack("!I", size)[0] - 4)
            server.sendall(size + body)
            break
        while kind := stream.read(1):
            size = stream.read(4)
            body = stream.read(struct.unpack("!I", size)[0] - 4)
            if kind == b"Q":
                self.statements.append(" ".join(body.rstrip(b"\0").decode().split()))
            server.sendall(kind + size + body)
        server.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        target.close()


@contextmanager
def counted(url: str) -> Iterator[Any]:
    wire = Wire(url)
    try:
        yield wire
    finally:
        wire.close()
