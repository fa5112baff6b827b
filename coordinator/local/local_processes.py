"""The embedded fleet: this machine's worker node, the dashboard and Flower, as children of `start`.

They get their addresses from their environment, and end with `start`, however it ends. Flower runs on our own Celery
app, never by `celery -A` in a folder of the user's: on loopback, behind a password that is made once and kept in the
home, read-only, bounded in memory. It shows tasks as they pass through Redis; the ledger is the truth.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highnoon.coordinator.local.owned_process import Command, OwnedProcess
from highnoon.shared.domain.errors import EmbeddedServiceError, InvalidInput, Problem
from highnoon.shared.runtime.data_dir import LOOPBACK, Home
from highnoon.shared.runtime.processes import module_command
from highnoon.shared.runtime.secret_files import SHORTEST_TOKEN, kept_token, with_secret_files
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.runtime.terminal import Exit

USER = "highnoon"
PASSWORD = "HIGHNOON_FLOWER_PASSWORD"  # noqa: S105 - the variable's name
_FILE = "flower-password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What Flower asks a browser for. `fresh` when it was made just now: to be shown this once."""

    password: str
    kept_in: Path
    fresh: bool


def flower_login(home: Path) -> Login:
    """The password that a person set, else the one of this home's Flower, made where there is none.

    Raises InvalidInput.
    """
    environ, problems = with_secret_files(os.environ)
    given = environ.get(PASSWORD, "")
    if given and (len(given) < SHORTEST_TOKEN or not given.replace("-", "").replace("_", "").isalnum()):
        problems.append(Problem(key=PASSWORD, message=f"must be {SHORTEST_TOKEN} or more letters, digits, - and _"))
    if problems:
        raise InvalidInput("environment", problems)
    if given:
        return Login(password=given, kept_in=Path(PASSWORD), fresh=False)
    path = home / _FILE
    password, fresh = kept_token(path, remedy="Set HIGHNOON_HOME to a folder that can be written.")
    return Login(password=password, kept_in=path, fresh=fresh)


def run_flower(redis_url: str, login: Login, *, port: int, address: str = "127.0.0.1") -> None:
    """Serves until a signal ends it."""
    from highnoon.shared.runtime.broker import make_app

    _close_what_asks_for_no_credential()
    make_app(redis_url).start(
        argv=[
            "flower",
            f"--address={address}",
            f"--port={port}",
            # The arguments of a call in this process, which no list of processes shows.
            f"--basic_auth={USER}:{login.password}",
            "--tasks_columns=kwargs,state,received,started,runtime,worker,uuid",
            "--max_tasks=5000",
            "--purge_offline_workers=600",
            "--read_only",
            # Our workers send events by their own settings; Flower need not ask them to every five seconds.
            "--enable_events=False",
            # Its inspections of workers that are not there yet are warnings.
            "--logging=error",
        ]
    )


def _close_what_asks_for_no_credential() -> None:
    """Flower's own metrics need no password; ours are elsewhere. `/healthcheck` stays: it answers OK and no more."""
    from flower import urls  # importing it takes a second, which no other command should pay

    def is_open(handler: Any) -> bool:
        return isinstance(handler, tuple) and handler[0] == "/metrics"

    urls.handlers[:] = [handler for handler in urls.handlers if not is_open(handler)]


_RESTARTS = 5
"""A node that dies more often than this within a minute has a fault that a restart does not repair."""


class Fleet:
    """Workers, dashboard and Flower of one `start`. Start it from the main thread: the kernel watches the thread."""

    def __init__(self, settings: Settings, home: Home, *, slots: int) -> None:
        self._settings = settings
        self._home = home
        self._slots = slots
        self._worker: OwnedProcess | None = None
        self._worker_starts: list[float] = []
        self._dashboard: OwnedProcess | None = None
        self._dashboard_port = home.service("dashboard").port
        self._flower: OwnedProcess | None = None
        self._flower_port = home.service("flower").port
        self.flower_login = flower_login(home.root)

    @property
    def worker_log(self) -> Path:
        """The node's log."""
        return self._home.logs / "worker.log"

    @property
    def dashboard_url(self) -> str:
        """Where the dashboard answers once it is up."""
        return f"http://{LOOPBACK}:{self._dashboard_port}/hpo"

    @property
    def flower_url(self) -> str:
        """Where Flower answers once it is up."""
        return f"http://{LOOPBACK}:{self._flower_port}"

    def start(self) -> None:
        """Starts all; none is waited for."""
        self._start_worker()
        self._dashboard = OwnedProcess(
            self._command("dashboard", "highnoon.webui", "--host", LOOPBACK, "--port", str(self._dashboard_port))
        )
        self._flower = OwnedProcess(
            self._command("flower", "highnoon.coordinator", "flower", "--port", str(self._flower_port))
        )

    def heal(self) -> tuple[str, ...]:
        """Starts the node again when it has died; returns what was dead. Dashboard and Flower are not worth a restart.

        Raises EmbeddedServiceError for a node whose pool cannot work, or that dies again and again.
        """
        if self._worker is None or self._worker.is_alive:
            return ()
        status, said = self._worker.exit_status, self._worker.last_lines()
        if status == Exit.POOL_BROKEN or self._is_failing():
            raise EmbeddedServiceError(f"no trial can run here: the worker ended ({status}). Its last lines:\n{said}")
        self._start_worker()
        return (f"worker (exit status {status})",)

    def stop(self) -> None:
        """Drains the node (running trials may end within `drain_s`), then ends the others."""
        settings = self._settings
        if self._worker is not None:
            self._worker.stop(settings.drain_s + 5 * settings.kill_grace_s + 5.0)
        for process in (self._dashboard, self._flower):
            if process is not None:
                process.stop(5.0)

    def hurry(self) -> None:
        """A second Ctrl-C: running trials are handed back now."""
        if self._worker is not None and self._worker.is_alive:
            os.kill(self._worker.pid, signal.SIGTERM)

    def _is_failing(self) -> bool:
        recent = [started for started in self._worker_starts if time.monotonic() - started < 60.0]
        return len(recent) > _RESTARTS

    def _start_worker(self) -> None:
        self._worker_starts.append(time.monotonic())
        arguments = ["start", "--queues", "cpu,gpu", "--slots", str(self._slots)]
        self._worker = OwnedProcess(self._command("worker", "highnoon.workers", *arguments))

    def _command(self, name: str, module: str, *arguments: str) -> Command:
        return Command(
            argv=module_command(module, *arguments),
            cwd=Path.cwd(),
            log=self._home.logs / f"{name}.log",
            polite=signal.SIGTERM,
            environ={
                **os.environ,
                "HIGHNOON_DATABASE_URL": self._settings.database_url or "",
                "HIGHNOON_REDIS_URL": self._settings.redis_url or "",
                "HIGHNOON_HOME": str(self._home.root),
                "HIGHNOON_WEBUI_FLOWER_URL": self.flower_url,
            },
        )
