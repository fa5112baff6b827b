"""The cluster of a chaos run: services of its own, a coordinator, nodes, and who starts them again when they end.

Everything is done by one thread. Whatever must happen later (a process goes on, a service comes back) is a timer.
"""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.store.access import opened
from tests.chaos.clients import connected
from tests.chaos.objective import STEP_S
from tests.chaos.slow_link import SERVICES, SlowLink, own_network
from tests.cluster import DEFAULT_PERIODS, Cluster
from tests.conftest import new_stack

TEMPORARY = "temporary"
"""The folder for temporary files of all processes of a run, beside their logs."""

MARK = "TEST_CHAOS_RUN"
"""In the environment of every process of a run: by it they are found in /proc."""

RESTART_S = 0.3
"""A service manager starts again what has ended, after a moment."""

WRONG_CLOCK = {
    "TEST_CLOCK_OFF_S": "86400",
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parent / "clock"), *filter(None, [os.environ.get("PYTHONPATH")])]
    ),
}
"""One node is always a day ahead."""

Role = str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A supervisor at work, from the file that it writes for its agent."""

    supervisor: int
    trial: int | None
    ticket: int
    attempt: int | None


@dataclass
class World:
    """One run's processes. `roles` are kept running: a process that ends is started again."""

    cluster: Cluster
    stack: Stack
    lease_s: float
    running: dict[Role, subprocess.Popen[bytes]] = field(default_factory=dict)
    restarts: int = 0
    keeps: bool = True
    frozen: set[str] = field(default_factory=set)
    study_is_locked: bool = False
    """By a fault of the run: a writer to the study would wait, and a run has one thread."""
    has_own_disk: bool = False
    link: SlowLink | None = None
    away_s: dict[Role, float] = field(default_factory=dict)
    """How long a process stays away that ends next."""
    _timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def start(self, role: Role) -> None:
        cluster = self.cluster
        if role == "coordinator":
            self.running[role] = cluster.start_coordinator()
        else:
            self.running[role] = cluster.start_worker(**self._environ_of(role))

    def _environ_of(self, node: Role) -> dict[str, str]:
        # A machine's own, as its disk: no other node repairs there what this one leaves.
        environ = {"HIGHNOON_HOME": str(self.cluster.folder / "home" / node)}
        if node == "node-1":
            environ |= WRONG_CLOCK
        if self.link is not None:
            environ["HIGHNOON_DATABASE_URL"] = self.link.address(self.cluster.database_url)
            environ["HIGHNOON_REDIS_URL"] = self.link.address(self.cluster.redis_url)
        return environ

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), action))

    @property
    def has_timers(self) -> bool:
        return bool(self._timers)

    def turn(self) -> None:
        """What is due, and one look at the processes."""
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        if not self.keeps:
            return
        for role, process in [*self.running.items()]:
            if process.poll() is not None:
                del self.running[role]
                self.restarts += 1
                self.later(self.away_s.pop(role, RESTART_S), lambda role=role: self.start(role))  # type: ignore[misc]

    # What runs now.

    def agents(self) -> list[int]:
        return [process.pid for role, process in self.running.items() if role != "coordinator"]

    def coordinator(self) -> int | None:
        process = self.running.get("coordinator")
        return None if process is None else process.pid

    def pools(self) -> list[int]:
        return [child.pid for agent in self.agents() for child in _children(agent)]

    def templates(self) -> list[int]:
        return [child.pid for pool in self.pools() for child in _children(pool) if _children(child.pid)]

    def supervisors(self) -> list[int]:
        templates = self.templates()
        return [child.pid for pool in self.pools() for child in _children(pool) if child.pid not in templates]

    def fork_servers(self) -> list[int]:
        return [child.pid for template in self.templates() for child in _children(template)]

    def slots(self) -> list[Slot]:
        return [
            Slot(supervisor=note["pid"], trial=note["trial_group"], ticket=note["ticket"], attempt=note["attempt"])
            for note in self.cluster.slots()
        ]

    def slots_below(self, pid: int) -> list[Slot]:
        below = self.all_below(pid)
        return [slot for slot in self.slots() if slot.supervisor in below]

    def all_below(self, pid: int) -> list[int]:
        """A process and all that descends from it."""
        return [pid, *(process.pid for process in _children(pid, recursive=True))]

    def processes(self) -> list[psutil.Process]:
        """All that carry the mark of this run, whatever their parents are."""
        mark = f"{MARK}={self.cluster.environ[MARK]}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError, psutil.Error, ValueError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(int(folder.name)))
        return [process for process in found if process.pid != os.getpid()]

    # Services.

    def service(self, name: str) -> list[psutil.Process]:
        """The processes of PostgreSQL or Redis, the parent first."""
        pid = (self.stack.postgres if name == "postgres" else self.stack.redis).pid
        if pid is None:
            return []
        with suppress(psutil.Error):
            root = psutil.Process(pid)
            return [root, *root.children(recursive=True)]
        return []

    def freeze(self, name: str, seconds: float) -> None:
        """Stops all its processes; it still acknowledges TCP, and answers nothing."""
        self.frozen.add(name)
        stopped: list[psutil.Process] = []
        for _ in range(2):
            for process in self.service(name):
                if process not in stopped:
                    with suppress(psutil.Error):
                        process.send_signal(signal.SIGSTOP)
                        stopped.append(process)

        def thaw() -> None:
            for process in reversed(stopped):
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGCONT)
            self.frozen.discard(name)

        self.later(seconds, thaw)

    def crash(self, name: str, signum: int, away_s: float) -> None:
        """Ends a service without ceremony and starts it again."""
        self.frozen.add(name)
        service = self.stack.postgres if name == "postgres" else self.stack.redis
        if service.pid is not None:
            os.kill(service.pid, signum)

        def back() -> None:
            if service.is_alive:
                self.later(0.1, back)
                return
            service.start()
            self.frozen.discard(name)

        self.later(away_s, back)

    def stop_for(self, pid: int, seconds: float) -> None:
        """A process that is scheduled again only after so long."""
        try:
            process = psutil.Process(pid)
            process.send_signal(signal.SIGSTOP)
        except psutil.Error:
            return

        def go_on() -> None:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

        self.later(seconds, go_on)


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


@contextmanager
def world(folder: Path, *, nodes: int, short_lease: bool, step_s: float = 0.03) -> Iterator[World]:
    """A cluster with periods of tests (a lease of 3 s), or with the settings that a user has."""
    temporary = folder / TEMPORARY
    temporary.mkdir()
    environ = {
        MARK: uuid.uuid4().hex,
        "TMPDIR": str(temporary),
        STEP_S: f"{step_s:.3f}",
        **({} if short_lease else DEFAULT_PERIODS),
    }
    with own_network() as link, new_stack() as stack:
        cluster = Cluster(stack.database_url, stack.redis_url, folder, environ)
        lease_s = 3.0 if short_lease else 30.0
        made = World(cluster, stack, lease_s, has_own_disk=_mounted(folder / "home"), link=link)
        if link is not None:
            _admit(stack.database_url)
        try:
            with opened(stack.database_url, create=True):
                made.start("coordinator")
                for number in range(nodes):
                    made.start(f"node-{number}")
            yield made
        finally:
            cluster.stop()
            for process in made.processes():
                with suppress(psutil.Error):
                    process.kill()
            for name in ("postgres", "redis"):
                for process in made.service(name):
                    with suppress(psutil.Error):
                        process.send_signal(signal.SIGCONT)
            if made.has_own_disk:
                subprocess.run(["umount", "--lazy", str(folder / "home")], check=True)


def _admit(database_url: str) -> None:
    """Lets clients from beyond the link log in; PostgreSQL was made for this machine alone."""
    with closing(connected(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("show hba_file")
        (file,) = cursor.fetchone() or ("",)
        with Path(file).open("a") as lines:
            lines.write(f"host all all {SERVICES}/32 scram-sha-256\n")
        cursor.execute("select pg_reload_conf()")


def _mounted(home: Path) -> bool:
    """A small file system for the nodes' folder, which a fault can fill. False where only root may mount one."""
    home.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(home)]
    return subprocess.run(mount, check=False, capture_output=True).returncode == 0


def _children(pid: int, *, recursive: bool = False) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=recursive)
    return []
