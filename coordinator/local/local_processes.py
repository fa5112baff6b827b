"""The embedded fleet: this machine's worker node, the dashboard and Flower, as children of `start`.

They get their addresses from their environment, and end with `start`, however it ends.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from highnoon.coordinator.local.flower import flower_login
from highnoon.coordinator.local.owned_process import Command, OwnedProcess
from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.data_dir import LOOPBACK, Home
from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.processes import module_command
from highnoon.shared.runtime.settings import Settings

_RESTARTS = 5
"""A node that dies more often than this within a minute has a fault that a restart does not mend."""


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
        """What the node says."""
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

        Raises EmbeddedServiceError for a node that says that it cannot live, or dies again and again.
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
