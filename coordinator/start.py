"""`coordinator start`: everything on this machine, or the coordinator of a cluster; with a study, to its end.

The order of things and nothing else: each step has a file of its own.
"""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from coordinator.access import is_embedded
from coordinator.ending import report_end
from coordinator.fleet import Fleet
from coordinator.flower import USER
from coordinator.handover import allow_here
from coordinator.metrics import served_metrics
from coordinator.progress import Say, watch
from coordinator.report import near
from coordinator.service import Service
from coordinator.stack import Stack
from shared.access import Access, opened
from shared.broker import Broker
from shared.errors import ServiceUnavailable
from shared.exits import Exit
from shared.logs import configure
from shared.settings import Settings
from shared.study import StudySpec
from shared.submission import Submission, submit
from shared.terminal import say

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What `start` was asked to do."""

    settings: Settings
    spec: StudySpec | None
    slots: int
    console: Console


class Stopping:
    """SIGINT and SIGTERM as a wish: the first ends in order, later ones hurry."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._hurry: Callable[[], None] | None = None
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._hear)

    def on_hurry(self, hurry: Callable[[], None]) -> None:
        """What a second signal does."""
        self._hurry = hurry

    def _hear(self, _signum: int, _frame: object) -> None:
        if self.wanted.is_set() and self._hurry is not None:
            self._hurry()
        self.wanted.set()


def run(errand: Errand) -> Exit:
    """Runs until the study is over, or until a signal without one. Raises HighNoonError for what cannot work."""
    stopping = Stopping()
    if is_embedded(errand.settings):
        return _run_embedded(errand, stopping)
    with _logging_for(errand):
        return _coordinate(errand, errand.settings, stopping, tend=lambda _: None)


def _run_embedded(errand: Errand, stopping: Stopping) -> Exit:
    console, home = errand.console, errand.settings.home
    _say_row(console, "data", near(home))
    with Stack(home) as stack, _logging_to(_log_file(errand.settings), errand.settings.log_level):
        addresses = {"database_url": stack.database_url, "redis_url": stack.redis_url}
        settings = errand.settings.model_copy(update=addresses)
        fleet = Fleet(settings, stack.home, slots=errand.slots)
        stopping.on_hurry(fleet.hurry)

        def tend(tell: Say) -> None:
            for died in (*stack.heal(), *fleet.heal()):
                tell(f"started again: {died}")

        try:
            allow_here(settings, errand.spec)
            fleet.start()
            _say_where(errand, fleet)
            return _coordinate(errand, settings, stopping, tend=tend)
        finally:
            grace = f" (running trials have {settings.drain_s:g} s; Ctrl-C again hands them back at once)"
            say(console, f"stopping{grace if stopping.wanted.is_set() else ''} ...", style="dim")
            fleet.stop()


def _coordinate(errand: Errand, settings: Settings, stopping: Stopping, *, tend: Callable[[Say], None]) -> Exit:
    """Connects, submits, serves, shows, reports."""
    console = errand.console
    database_url, redis_url = settings.database_url or "", settings.redis_url or ""
    with ExitStack() as connections:
        access = _patiently(lambda: connections.enter_context(opened(database_url, create=True)), stopping, console)
        broker = _patiently(lambda: connections.enter_context(_answering(redis_url)), stopping, console)
        if access is None or broker is None:
            return Exit.INTERRUPTED
        deeds = connections.enter_context(served_metrics(settings, database=access.database, broker=broker))
        submission = None if errand.spec is None else submit(errand.spec, access)
        if submission is not None:
            _say_submission(submission, access, console)
        service = Service(settings, database=access.database, store=access.store, broker=broker, deeds=deeds)
        with _serving(service, broker):

            def go_on(tell: Say) -> bool:
                tend(tell)
                return not stopping.wanted.is_set()

            if submission is None:
                _serve_until_stopped(stopping, console, go_on)
                return Exit.OK
            standing = watch(submission.record.name, access.studies, console, go_on=go_on)
        if standing is None:
            say(console, "interrupted: the same command goes on where this one ended")
            return Exit.INTERRUPTED
        return report_end(standing, access, console)


def _say_where(errand: Errand, fleet: Fleet) -> None:
    name = "STUDY" if errand.spec is None else shlex.quote(errand.spec.name)
    slots = "1 slot" if errand.slots == 1 else f"{errand.slots} slots"
    _say_row(errand.console, "workers", f"{slots}, log {near(fleet.worker_log)}")
    _say_row(errand.console, "dashboard", fleet.dashboard_url)
    login = fleet.flower_login
    _say_row(errand.console, "flower", fleet.flower_url)
    password = f"password {login.password}" if login.fresh else f"password in {near(login.kept_in)}"
    _say_row(errand.console, "", f"user {USER}, {password}")
    _say_row(errand.console, "logs", f"{near(fleet.worker_log.parent)}/{name}/trial-*.log")
    _say_row(errand.console, "optuna", f"python -m coordinator exec optuna trials --study-name {name}")


def _say_submission(submission: Submission, access: Access, console: Console) -> None:
    name, trials = submission.record.name, submission.trials
    goes_on = ""
    if submission.joined:
        done = access.studies.counts(submission.record.id).closed
        goes_on = f" (goes on: {done} done, {submission.added} added)"
    _say_row(console, "study", f"{name}, {trials} trials{goes_on}")
    if submission.note:
        say(console, submission.note, style="yellow")


def _say_row(console: Console, name: str, where: str) -> None:
    console.print(Text.assemble((f"{name:10}", "bold"), " ", where), soft_wrap=True)


def _serve_until_stopped(stopping: Stopping, console: Console, go_on: Callable[[Say], bool]) -> None:
    say(console, "serving; submit with: python -m coordinator submit STUDY_FILE; Ctrl-C ends")
    while go_on(lambda line: say(console, line)):
        stopping.wanted.wait(0.5)


def _patiently(step: Callable[[], T], stopping: Stopping, console: Console) -> T | None:
    """What `step` returns once its service answers, saying meanwhile what is waited for; None after a signal."""
    pause_s = _FIRST_PAUSE_S
    while not stopping.wanted.is_set():
        try:
            return step()
        except ServiceUnavailable as error:
            say(console, f"waiting: {error}", style="yellow")
        stopping.wanted.wait(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return None


@contextmanager
def _answering(redis_url: str) -> Iterator[Broker]:
    with Broker(redis_url) as broker:
        broker.ping()
        yield broker


@contextmanager
def _serving(service: Service, broker: Broker) -> Iterator[None]:
    """The service in a thread of its own; the main thread keeps signals, display and children."""
    ending = threading.Event()
    thread = threading.Thread(target=service.serve, args=(ending,), name="coordinator")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        broker.ring()
        thread.join()


def _logging_for(errand: Errand) -> AbstractContextManager[None]:
    """A terminal that shows progress is no place for a log; everywhere else a cluster's coordinator logs to stderr."""
    if errand.spec is not None and errand.console.is_terminal:
        _say_row(errand.console, "log", near(_log_file(errand.settings)))
        return _logging_to(_log_file(errand.settings), errand.settings.log_level)
    configure(errand.settings.log_level)
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
