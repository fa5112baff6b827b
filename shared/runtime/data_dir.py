"""The folder where a stack keeps its data (`.highnoon`), and what it must remember from one start to the next.

Owns the names of the files in it, the ports and passwords of the services (state.json, for us alone), and their last
processes, so that a start after a `kill -9` recognises what is still shutting down. `attach` finds a stack that runs,
for other processes. Holds no lock: `coordinator.local.stack` does.
"""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.processes import Identity, identify
from highnoon.shared.runtime.whole_file import whole_file

LOOPBACK = "127.0.0.1"


START = "coordinator start"
"""The purpose for which a home is held while everything in it runs."""

POSTGRES, REDIS = "postgres", "redis"
ROLE = DATABASE = "highnoon"

WORKERS_FOLDERS = ("bundles", "checkpoints", "nodes", "runs")
"""What the workers of this machine make below the home: the files of trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """One service's address, kept across starts, and the process that last served it."""

    port: int
    password: str
    process: Identity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds the home, as it recorded itself. The lock decides whether it is true."""

    process: Identity
    purpose: str
    ready: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The content of state.json."""

    services: dict[str, ServiceState] = field(default_factory=dict)
    holder: Holder | None = None


_STATE = TypeAdapter(State)


class Home:
    """The folder of one stack. Changing its state is for the holder of its lock only."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.lock = self.root / "stack.lock"
        self.logs = self.root / "logs"
        self.postgres = self.root / "postgres"
        self.redis = self.root / "redis"
        self._state = self.root / "state.json"

    def prepare(self) -> None:
        """Makes the folder, closed to others. Raises EmbeddedServiceError when it cannot be written."""
        try:
            for folder in (self.root, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedServiceError(f"cannot write to {self.root} ({error.strerror}); set HIGHNOON_HOME") from error

    @property
    def has_database(self) -> bool:
        return (self.postgres / "PG_VERSION").exists()

    def load(self) -> State:
        """What the last holder wrote; an empty state when there is none."""
        try:
            return _STATE.validate_json(self._state.read_bytes())
        except FileNotFoundError:
            return State()
        except ValueError:  # it quotes what it was given, which holds passwords
            raise EmbeddedServiceError(f"{self._state} is not ours or damaged; move it away") from None

    def save(self, state: State) -> None:
        """Writes the state whole or not at all, readable by its owner only."""
        with whole_file(self._state) as file:
            file.write(_STATE.dump_json(state, indent=1))

    def service(self, name: str) -> ServiceState:
        """The address of a service: the last one while its port is free, else a new port; the password is kept."""
        state = self.load()
        last = state.services.get(name)
        service = ServiceState(
            port=last.port if last and _is_free(last.port) else _free_port(),
            password=last.password if last else secrets.token_urlsafe(24),
        )
        self.remember(name, service)
        return service

    def remember(self, name: str, service: ServiceState) -> None:
        """Replaces what is known of one service."""
        state = self.load()
        self.save(replace(state, services={**state.services, name: service}))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A stack that runs now, with passwords in its addresses."""

    pid: int
    database_url: str
    redis_url: str


def attach(root: Path) -> Running | None:
    """The stack that runs in this home now; None when none does, or it is still starting. Changes nothing."""
    home = Home(root)
    holder = living_holder(home)
    if holder is None or not holder.ready or holder.purpose != START:
        return None
    services = home.load().services
    return Running(
        pid=holder.process.pid,
        database_url=postgres_url(services[POSTGRES]),
        redis_url=redis_url(services[REDIS]),
    )


def living_holder(home: Home) -> Holder | None:
    """The holder of the home; None when it has none, or its last holder was killed."""
    holder = home.load().holder
    return holder if holder and identify(holder.process.pid) == holder.process else None


def postgres_url(address: ServiceState) -> str:
    """The database's address for clients, with the password."""
    return f"postgresql+psycopg2://{ROLE}:{address.password}@{LOOPBACK}:{address.port}/{DATABASE}"


def redis_url(address: ServiceState) -> str:
    """The broker's address for clients, with the password."""
    return f"redis://:{address.password}@{LOOPBACK}:{address.port}/0"
