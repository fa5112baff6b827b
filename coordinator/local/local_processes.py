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
from highnoon.shared.runtime.processes import RESTARTS, dies_at_each_start, module_command
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


class Fleet:
    """Workers, dashboard and Flower of one `start`. Start it from the main thread: the kernel watches the thread."""

    def __init__(self, settings: Settings, home: Home, *, slots: int) -> None:
        self._settings = settings
        self._home = home
        self._dashboard_port = home.service("dashboard").port
        self._flower_port = home.service("flower").port
        self._commands = {
            "worker": ["highnoon.workers", "start", "--queues", "cpu,gpu", "--slots", str(slots)],
            "dashboard": ["highnoon.webui", "--host", LOOPBACK, "--port", str(self._dashboard_port)],
            "flower": ["highnoon.coordinator", "flower", "--port", str(self._flower_port)],
        }
        # In the order in which they are ended: the worker first.
        self._processes: dict[str, OwnedProcess] = {}
        self._starts: dict[str, list[float]] = {}
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
        for name in self._commands:
            self._start(name)

    def heal(self) -> tuple[str, ...]:
        """Starts again what has died; returns a line for each.

        Raises EmbeddedServiceError for a node whose pool cannot work, or that dies again and again.
        """
        lines = []
        for name, process in [*self._processes.items()]:
            if process.is_alive:
                continue
            status, said = process.exit_status, process.last_lines()
            is_failing = dies_at_each_start(self._starts[name])
            if name == "worker" and (status == Exit.POOL_BROKEN or is_failing):
                raise EmbeddedServiceError(
                    f"no trial can run here: the worker ended ({status}). Its last lines:\n{said}"
                )
            if is_failing:
                # The study needs neither dashboard nor Flower.
                del self._processes[name]
                lines.append(f"{name} ended {RESTARTS + 1} times within a minute (exit status {status}) and stays off")
            else:
                self._start(name)
                lines.append(f"started again: {name} (exit status {status})")
        return tuple(lines)

    def stop(self) -> None:
        """Drains the node (running trials may end within `drain_s`), then ends the others."""
        settings = self._settings
        for name, process in self._processes.items():
            process.stop(settings.drain_s + 5 * settings.kill_grace_s + 5.0 if name == "worker" else 5.0)

    def hurry(self) -> None:
        """A second Ctrl-C: running trials are handed back now."""
        worker = self._processes.get("worker")
        if worker is not None and worker.is_alive:
            os.kill(worker.pid, signal.SIGTERM)

    def _start(self, name: str) -> None:
        self._starts.setdefault(name, []).append(time.monotonic())
        self._processes[name] = OwnedProcess(self._command(name, *self._commands[name]))

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
                "HIGHNOON_ARTIFACTS_URL": self._settings.artifacts_url or "",
                "HIGHNOON_WEBUI_FLOWER_URL": self.flower_url,
            },
        )
