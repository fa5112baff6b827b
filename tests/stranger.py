"""A stranger: somebody who reaches a port and has no credential. Finds what listens, and tells what answers him.

He speaks HTTP, Redis and PostgreSQL to every port, whatever it is meant for. A refusal is no answer, but it tells which
protocol is spoken there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg2

_REFUSALS = frozenset({401, 403, 404, 405, 421})
_UNIX_LISTENS = 0x10000
"""__SO_ACCEPTCON among the flags of /proc/net/unix."""


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """A port that somebody may connect to, or send to."""

    host: str
    port: int
    kind: str = "tcp"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a stranger heard at one port: the protocol that is spoken there, and each question that was answered."""

    protocol: str
    answered: frozenset[str] = frozenset()


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all that came of it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def listeners(processes: Iterable[psutil.Process]) -> set[Listener]:
    """Everything of theirs that takes connections or datagrams, from /proc."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(Listener(connection.laddr.ip, connection.laddr.port))
                elif connection.type == socket.SOCK_DGRAM and connection.laddr and not connection.raddr:
                    found.add(Listener(connection.laddr.ip, connection.laddr.port, "udp"))
    return found


def unix_listeners(processes: Iterable[psutil.Process]) -> set[str]:
    """Names of the unix sockets of theirs that take connections; an abstract one begins with @."""
    owned = set()
    for process in processes:
        with suppress(OSError):
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    owned.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, _, inode, *name = line.split(maxsplit=7)
        if inode in owned and int(flags, 16) & _UNIX_LISTENS:
            found.add(name[0] if name else "")
    return found


def hear(host: str, port: int, paths: Iterable[str]) -> Heard:
    """Tries everything at one port."""
    # HTTP before PostgreSQL and after Redis: this server would wait for the rest of that question.
    return _by_redis(host, port) or _by_http(host, port, paths) or _by_postgres(host, port) or Heard("silence")


def _by_redis(host: str, port: int) -> Heard | None:
    if not _line(host, port, "PING").startswith((b"+", b"-")):
        return None
    questions = ("PING", "INFO", "HELLO 3", "CONFIG GET *", "CLIENT LIST", "KEYS *", "FLUSHALL")
    return Heard("redis", frozenset(asked for asked in questions if not _line(host, port, asked).startswith(b"-")))


def _line(host: str, port: int, question: str) -> bytes:
    """What Redis says at once; another server may wait for more."""
    with socket.create_connection((host, port), timeout=3) as connection, suppress(OSError):
        connection.sendall(f"{question}\r\n".encode())
        return connection.recv(200)
    return b""


def _by_http(host: str, port: int, paths: Iterable[str]) -> Heard | None:
    answered = set()
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=10, trust_env=False) as client:
        for path in ("/", *paths):
            try:
                answer = client.get(path)
            except httpx.TransportError:
                return None
            leads_to_login = answer.is_redirect and answer.headers["location"].startswith("/login")
            if answer.status_code not in _REFUSALS and not leads_to_login:
                answered.add(path)
    return Heard("http", frozenset(answered))


def _by_postgres(host: str, port: int) -> Heard | None:
    place = {"host": host, "port": port, "dbname": "postgres", "passfile": "/dev/null", "connect_timeout": 10}
    speaks, answered = False, set()
    for user in ("postgres", "highnoon", "highnoon_coordinator", "highnoon_worker"):
        for password in (None, "", user, "postgres"):
            try:
                psycopg2.connect(**place, user=user, password=password).close()
                answered.add(f"{user}/{password}")
            except psycopg2.OperationalError as refused:
                speaks = speaks or "password" in str(refused)
    return Heard("postgresql", frozenset(answered)) if speaks or answered else None
