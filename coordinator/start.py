"""`coordinator start`: everything on this machine, or the coordinator of a cluster; with a study, to its end.

The order of things and nothing else: each step has a file of its own.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from coordinator.access import Access, is_embedded, opened
from coordinator.fleet import Fleet
from coordinator.progress import Display, Standing, watch
from coordinator.report import params_table, spelled
from coordinator.service import Service
from coordinator.stack import Stack
from coordinator.submission import Submission, submit
from shared.broker import Broker
from shared.errors import ServiceUnavailable
from shared.exits import Exit
from shared.logs import configure
from shared.settings import Settings
from shared.states import StudyState
from shared.study import StudySpec

_log = logging.getLogger("coordinator.start")


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
    configure(errand.settings.log_level)
    return _coordinate(errand, errand.settings, stopping, tend=lambda _: None)


def _run_embedded(errand: Errand, stopping: Stopping) -> Exit:
    console, home = errand.console, errand.settings.home
    with Stack(home) as stack, _logging_to(home / "logs" / "coordinator.log", errand.settings.log_level):
        addresses = {"database_url": stack.database_url, "redis_url": stack.redis_url}
        settings = errand.settings.model_copy(update=addresses)
        fleet = Fleet(settings, stack.home, slots=errand.slots)
        stopping.on_hurry(fleet.hurry)

        def tend(display: Display) -> None:
            for died in (*stack.heal(), *fleet.heal()):
                display.say(f"started again: {died}")

        try:
            fleet.start()
            _say_where(errand, fleet)
            return _coordinate(errand, settings, stopping, tend=tend)
        finally:
            console.print("stopping workers and services ...", style="dim", highlight=False)
            fleet.stop()


def _coordinate(errand: Errand, settings: Settings, stopping: Stopping, *, tend: Callable[[Display], None]) -> Exit:
    """Submits, serves, shows, reports."""
    console = errand.console
    assert settings.database_url is not None and settings.redis_url is not None
    with _opened_patiently(settings.database_url, console) as access, Broker(settings.redis_url) as broker:
        submission = None if errand.spec is None else submit(errand.spec, access)
        if submission is not None:
            _say_submission(submission, console)
        service = Service(settings, database=access.database, store=access.store, broker=broker)
        with _serving(service, broker):

            def go_on(display: Display) -> bool:
                tend(display)
                return not stopping.wanted.is_set()

            if submission is None:
                _serve_until_stopped(stopping, console, tend)
                return Exit.OK
            standing = watch(submission.record.name, access.studies, console, go_on=go_on)
        if standing is None:
            console.print("interrupted; the same command goes on where this one ended", highlight=False)
            return Exit.INTERRUPTED
        return report_end(standing, access, console)


def report_end(standing: Standing, access: Access, console: Console) -> Exit:
    """The best trial as a table; OK only when there is one and the study was not cancelled."""
    record = standing.record
    best = access.optuna(record).best_trial()
    if best is None or record.state is StudyState.CANCELLED:
        _say_no_result(standing, access, console)
        return Exit.NO_RESULT
    console.print()
    console.print(f"Best trial {best.number} of {standing.counts.closed}: value {spelled(best.value)}", style="bold")
    console.print(params_table(best.params))
    attempts = access.studies.attempts(record.id, trial_number=best.number)
    last_line = ((attempts[-1].log_tail or "").strip().splitlines() or [""])[-1] if attempts else ""
    if last_line:
        console.print(f"Its last line: {last_line}", highlight=False, soft_wrap=True)
    return Exit.OK


def _say_no_result(standing: Standing, access: Access, console: Console) -> None:
    record = standing.record
    console.print(f"study {record.name} is {record.state} without a best trial", style="bold red")
    failed = [attempt for attempt in access.studies.attempts(record.id) if attempt.message]
    if failed:
        last = failed[-1]
        console.print(f"last failure: {last.message} (log: {last.log_path})", highlight=False, soft_wrap=True)


def _say_where(errand: Errand, fleet: Fleet) -> None:
    slots = f"{errand.slots} slot" + ("s" if errand.slots != 1 else "")
    for name, where in (
        ("workers", f"{slots}, log {_near(fleet.worker_log)}"),
        ("flower", fleet.flower_url),
        ("logs", f"{_near(fleet.worker_log.parent)}/STUDY/trial-NUMBER.log"),
        ("optuna", "python -m coordinator exec optuna trials --study-name STUDY"),
    ):
        errand.console.print(f"[bold]{name:8}[/bold] {where}", highlight=False, soft_wrap=True)


def _say_submission(submission: Submission, console: Console) -> None:
    name, trials = submission.record.name, submission.trials
    how = f"goes on: {submission.added} trials added" if submission.added else "goes on"
    console.print(f"[bold]study[/bold]    {name}, {trials} trials" + (f" ({how})" if submission.joined else ""))
    if submission.note:
        console.print(submission.note, style="yellow", highlight=False)


def _serve_until_stopped(stopping: Stopping, console: Console, tend: Callable[[Display], None]) -> None:
    console.print("serving; submit with: python -m coordinator submit STUDY_FILE; Ctrl-C ends", highlight=False)
    display = _Plain(console)
    while not stopping.wanted.wait(0.5):
        tend(display)


class _Plain:
    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, standing: Standing) -> None:
        return

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        return


@contextmanager
def _opened_patiently(url: str, console: Console) -> Iterator[Access]:
    """Waits for a database that is not there yet, saying so."""

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        console.print(f"waiting: {error}", style="yellow", highlight=False, soft_wrap=True)

    for attempt in Retrying(
        retry=retry_if_exception_type(ServiceUnavailable),
        wait=wait_random_exponential(multiplier=0.5, max=10.0),
        before_sleep=say,
        reraise=True,
    ):
        with attempt:
            manager = opened(url, create=True)
            access = manager.__enter__()
    try:
        yield access
    finally:
        manager.__exit__(None, None, None)


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


@contextmanager
def _logging_to(path: Path, level: str) -> Iterator[None]:
    """A terminal that shows progress is no place for a log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        configure(level, stream)
        try:
            yield
        finally:
            configure(level)


def _near(path: Path) -> str:
    """Relative to where the person stands, when that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
