"""The embedded fleet: this machine's worker node and Flower, as children of `start`.

They are told their addresses by their environment, and end with `start`, whatever ends it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from coordinator.services.home import LOOPBACK, Home
from coordinator.services.process import Command, OwnedProcess
from shared.settings import Settings


class Fleet:
    """Workers and Flower of one `start`. Start it from the main thread: the kernel watches the thread."""

    def __init__(self, settings: Settings, home: Home, *, slots: int) -> None:
        self._settings = settings
        self._home = home
        self._slots = slots
        self._worker: OwnedProcess | None = None
        self._flower: OwnedProcess | None = None
        self._flower_port = home.service("flower").port

    @property
    def worker_log(self) -> Path:
        """What the node says."""
        return self._home.logs / "worker.log"

    @property
    def flower_url(self) -> str:
        """Where Flower answers once it is up."""
        return f"http://{LOOPBACK}:{self._flower_port}"

    def start(self) -> None:
        """Starts both; neither is waited for."""
        self._start_worker()
        self._flower = OwnedProcess(
            self._command("flower", ["coordinator", "flower", "--port", str(self._flower_port)])
        )

    def heal(self) -> tuple[str, ...]:
        """Starts the node again when it has died; returns what was dead. Flower is not worth a restart."""
        if self._worker is None or self._worker.is_alive:
            return ()
        died = f"worker (exit status {self._worker.exit_status})\n{self._worker.last_lines()}"
        self._start_worker()
        return (died,)

    def stop(self) -> None:
        """Drains the node (running trials may end within `drain_s`), then ends Flower."""
        settings = self._settings
        if self._worker is not None:
            self._worker.stop(settings.drain_s + 5 * settings.kill_grace_s + 5.0)
        if self._flower is not None:
            self._flower.stop(5.0)

    def hurry(self) -> None:
        """A second Ctrl-C: running trials are handed back now."""
        if self._worker is not None and self._worker.is_alive:
            os.kill(self._worker.pid, signal.SIGTERM)

    def _start_worker(self) -> None:
        arguments = ["workers", "start", "--queues", "cpu,gpu", "--slots", str(self._slots)]
        self._worker = OwnedProcess(self._command("worker", arguments))

    def _command(self, name: str, arguments: list[str]) -> Command:
        return Command(
            argv=[sys.executable, "-m", *arguments],
            cwd=Path.cwd(),
            log=self._home.logs / f"{name}.log",
            polite=signal.SIGTERM,
            environ={
                **os.environ,
                "HIGHNOON_DATABASE_URL": self._settings.database_url or "",
                "HIGHNOON_REDIS_URL": self._settings.redis_url or "",
                "HIGHNOON_HOME": str(self._home.root),
            },
        )
