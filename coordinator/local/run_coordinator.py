"""The coordinator's part of `start`: connects, submits, serves, shows, reports.

What it imports takes longer than starting the services does: `start` imports it when they and the workers are under
way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from highnoon.coordinator.cli.failures import report_end
from highnoon.coordinator.cli.progress import watch
from highnoon.coordinator.cluster_metrics import served_metrics
from highnoon.coordinator.service import Service
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.runtime.terminal import Exit, Say, say, say_row
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.database import Database
from highnoon.shared.store.submission import Submission, submit, with_git

if TYPE_CHECKING:
    from highnoon.coordinator.local.start import StartOptions, StopRequest

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0

T = TypeVar("T")


def coordinate(
    options: StartOptions, settings: Settings, stopping: StopRequest, *, tend: Callable[[Say], None]
) -> Exit:
    """Connects, submits, serves, shows, reports."""
    console = options.console
    database_url, redis_url = settings.database_url or "", settings.redis_url or ""
    with ExitStack() as connections:
        patience = (stopping, console, tend)
        access = _answered(lambda: connections.enter_context(opened(database_url, create=True)), *patience)
        broker = _answered(lambda: connections.enter_context(_answering(redis_url)), *patience)
        if access is None or broker is None:
            return Exit.INTERRUPTED
        counters = connections.enter_context(served_metrics(settings, database=access.database, broker=broker))
        began = access.studies.clock()
        submission = None if options.spec is None else submit(with_git(options.spec), access)
        if submission is not None:
            _say_submission(submission, access, console)
        # Not the database of `access`: its deadline is for long reads, and a tick must notice a server that is frozen.
        database = connections.enter_context(closing(Database(database_url)))
        service = Service(settings, database=database, broker=broker, counters=counters)
        with _serving(service):

            def go_on(say_line: Say) -> bool:
                tend(say_line)
                return not stopping.wanted.is_set()

            if submission is None:
                _serve_until_stopped(stopping, console, go_on)
                return Exit.OK
            standing = watch(submission.record.name, access, console, go_on=go_on)
        if standing is None:
            say(console, "interrupted: the same command goes on where this one ended")
            return Exit.INTERRUPTED
        return report_end(standing, access, console, since=0.0 if submission.record.is_over else began)


def _say_submission(submission: Submission, access: Access, console: Console) -> None:
    name, trials = submission.record.name, submission.trials
    goes_on = ""
    if submission.joined:
        done = access.studies.counts(submission.record.id).closed
        goes_on = f" (goes on: {done} done, {submission.added} added)"
    say_row(console, "study", f"{name}, {trials} trials{goes_on}")
    if submission.note:
        say(console, submission.note, style="yellow")


def _serve_until_stopped(stopping: StopRequest, console: Console, go_on: Callable[[Say], bool]) -> None:
    say(console, "serving; submit with: python -m coordinator submit STUDY_FILE; Ctrl-C ends")
    while go_on(lambda line: say(console, line)):
        stopping.wanted.wait(0.5)


def _answered(step: Callable[[], T], stopping: StopRequest, console: Console, tend: Callable[[Say], None]) -> T | None:
    """What `step` returns once its service answers, with a line about the wait; None after a signal.

    Meanwhile `tend` keeps the processes of this machine running.
    """
    warn = partial(say, console, style="yellow")
    pause_s = _FIRST_PAUSE_S
    while not stopping.wanted.is_set():
        try:
            return step()
        except ServiceUnavailable as error:
            warn(f"waiting: {error}")
        tend(warn)
        stopping.wanted.wait(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return None


@contextmanager
def _answering(redis_url: str) -> Iterator[Broker]:
    with Broker(redis_url) as broker:
        broker.ping()
        yield broker


@contextmanager
def _serving(service: Service) -> Iterator[None]:
    """The service in a thread of its own; the main thread keeps signals, display and children."""
    ending = threading.Event()
    thread = threading.Thread(target=service.serve, args=(ending,), name="coordinator")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        service.wake()
        thread.join()
