"""A stranger: a client that reaches a port and has no credential. Finds what listens, and what answers.

Every port is spoken to in Redis, HTTP and PostgreSQL, whatever it is meant for. A refusal is no answer, but it tells
which protocol is spoken there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2

_REFUSALS = frozenset({401, 403, 404, 405, 421})
# As the kernel spells them: LISTEN; a datagram socket that is not connected; __SO_ACCEPTCON among the flags.
_TCP_LISTENS, _UDP_TAKES, _UNIX_LISTENS = "0A", "07", 0x10000


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """A port that a client may connect to, or send to."""

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
    """Everything of theirs that takes connections or datagrams, each looked up in its own network namespace."""
    found = set()
    for process in processes:
        owned = _sockets_of(process.pid)
        for table, listens in (
            ("tcp", _TCP_LISTENS),
            ("tcp6", _TCP_LISTENS),
            ("udp", _UDP_TAKES),
            ("udp6", _UDP_TAKES),
        ):
            for _, local, _, state, *rest in _rows(f"/proc/{process.pid}/net/{table}"):
                if rest[5] in owned and state == listens:
                    found.add(Listener(*_address(local), table[:3]))
    return found


def unix_listeners(processes: Iterable[psutil.Process]) -> set[str]:
    """Names of the unix sockets of theirs that take connections; an abstract one begins with @."""
    found = set()
    for process in processes:
        owned = _sockets_of(process.pid)
        for _, _, _, flags, _, _, inode, *name in _rows(f"/proc/{process.pid}/net/unix"):
            if inode in owned and int(flags, 16) & _UNIX_LISTENS:
                found.add(name[0] if name else "")
    return found


def _sockets_of(pid: int) -> set[str]:
    """The numbers of a process's open sockets; none of one that is gone."""
    found = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def _rows(path: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(path).read_text().splitlines()[1:]]
    except OSError:
        return []


def _address(written: str) -> tuple[str, int]:
    """As /proc writes it: groups of four bytes, each the wrong way round."""
    host, port = written.split(":")
    groups = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
    family = socket.AF_INET if len(groups) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(groups)), int(port, 16)


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
    """What Redis answers at once; another server may wait for more."""
    with socket.create_connection((host, port), timeout=3) as connection, suppress(OSError):
        connection.sendall(f"{question}\r\n".encode())
        return connection.recv(200)
    return b""


def _by_http(host: str, port: int, paths: Iterable[str]) -> Heard | None:
    answered = set()
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=60, trust_env=False) as client:
        for path, method in product(("/", *paths), ("GET", "POST", "DELETE")):
            try:
                answer = client.request(method, path)
            except httpx.TransportError:
                return None
            leads_to_login = answer.is_redirect and answer.headers["location"].startswith("/login")
            if answer.status_code not in _REFUSALS and not leads_to_login:
                answered.add(path if method == "GET" else f"{method} {path}")
    return Heard("http", frozenset(answered))


def _by_postgres(host: str, port: int) -> Heard | None:
    place: dict[str, Any] = {
        "host": host,
        "port": port,
        "dbname": "postgres",
        "passfile": "/nowhere",
        "connect_timeout": 10,
    }
    speaks, answered = False, set()
    for user in ("postgres", "highnoon", "highnoon_coordinator", "highnoon_worker"):
        for password in (None, "", user, "postgres"):
            try:
                psycopg2.connect(**place, user=user, password=password).close()
                answered.add(f"{user}/{password}")
            except psycopg2.OperationalError as refused:
                speaks = speaks or "password" in str(refused)
    return Heard("postgresql", frozenset(answered)) if speaks or answered else None
