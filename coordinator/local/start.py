"""`coordinator start`: everything on this machine, or the coordinator of a cluster; with a study, to its end.

The order of things and nothing else: each step has a file of its own.
"""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from highnoon.coordinator.cli.command_io import is_embedded
from highnoon.coordinator.cli.tables import near
from highnoon.coordinator.local.local_processes import USER, Fleet
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.strategy import modules_of
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.allow_list import allow_study
from highnoon.shared.runtime.extras import require
from highnoon.shared.runtime.logs import configure
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.runtime.terminal import Exit, Say, say, say_row


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """What `start` was asked to do."""

    settings: Settings
    spec: StudySpec | None
    slots: int
    console: Console


class StopRequest:
    """SIGINT and SIGTERM as a request: the first ends in order, later ones at once."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._hurry: Callable[[], None] | None = None
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def on_hurry(self, hurry: Callable[[], None]) -> None:
        """What a second signal does."""
        self._hurry = hurry

    def _on_signal(self, _signum: int, _frame: object) -> None:
        if self.wanted.is_set() and self._hurry is not None:
            self._hurry()
        self.wanted.set()


def run(options: StartOptions) -> Exit:
    """Runs until the study is over, or until a signal without one. Raises HighNoonError for what cannot work."""
    stopping = StopRequest()
    if is_embedded(options.settings):
        if options.spec is not None:
            require(modules_of(options.spec.sampler, options.spec.pruner))
        return _run_embedded(options, stopping)
    with _logging_for(options):
        from highnoon.coordinator.local.run_coordinator import coordinate

        return coordinate(options, options.settings, stopping, tend=lambda _: None)


def _run_embedded(options: StartOptions, stopping: StopRequest) -> Exit:
    console, home = options.console, options.settings.home
    say_row(console, "data", near(home))
    with Stack(home) as stack, _logging_to(_log_file(options.settings), options.settings.log_level):
        addresses = {"database_url": stack.database_url, "redis_url": stack.redis_url}
        place = options.settings.artifacts_place
        settings = options.settings.model_copy(update={**addresses, "artifacts_url": place})
        fleet = Fleet(settings, stack.home, slots=options.slots)
        stopping.on_hurry(fleet.hurry)

        def tend(say_line: Say) -> None:
            for line in (*(f"started again: {died}" for died in stack.heal()), *fleet.heal()):
                say_line(line)

        try:
            allow_study(settings, options.spec)
            fleet.start()
            _say_where(options, fleet)
            # Only now: its imports take as long as all before, and the workers' may begin meanwhile.
            from highnoon.coordinator.local.run_coordinator import coordinate

            return coordinate(options, settings, stopping, tend=tend)
        finally:
            grace = f" (running trials have {settings.drain_s:g} s; Ctrl-C again hands them back at once)"
            say(console, f"stopping{grace if stopping.wanted.is_set() else ''} ...", style="dim")
            fleet.stop()


def _say_where(options: StartOptions, fleet: Fleet) -> None:
    name = "STUDY" if options.spec is None else shlex.quote(options.spec.name)
    slots = "1 slot" if options.slots == 1 else f"{options.slots} slots"
    say_row(options.console, "workers", f"{slots}, log {near(fleet.worker_log)}")
    say_row(options.console, "dashboard", fleet.dashboard_url)
    login = fleet.flower_login
    say_row(options.console, "flower", fleet.flower_url)
    password = f"password {login.password}" if login.fresh else f"password in {near(login.kept_in)}"
    say_row(options.console, "", f"user {USER}, {password}")
    say_row(options.console, "logs", f"{near(fleet.worker_log.parent)}/{name}/trial-*.log")
    say_row(options.console, "optuna", f"{near(sys.executable)} -m coordinator exec optuna trials --study-name {name}")


def _logging_for(options: StartOptions) -> AbstractContextManager[None]:
    """A terminal that shows progress is no place for a log; everywhere else a cluster's coordinator logs to stderr."""
    if options.spec is not None and options.console.is_terminal:
        say_row(options.console, "log", near(_log_file(options.settings)))
        return _logging_to(_log_file(options.settings), options.settings.log_level)
    configure(options.settings.log_level)
    return nullcontext()


def _log_file(settings: Settings) -> Path:
    return settings.home / "logs" / "coordinator.log"


@contextmanager
def _logging_to(path: Path, level: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        configure(level, stream)
        try:
            yield
        finally:
            configure(level)
