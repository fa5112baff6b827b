"""Live progress of one study: a bar in a terminal, with a line for each slot in `watch`; plain lines elsewhere.

Reads the ledger, changes nothing.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from highnoon.coordinator.cli.tables import aligned, size_cell, time_cell, trials_wait, value_cell
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.runtime.terminal import Say, say
from highnoon.shared.store.access import Access
from highnoon.shared.store.attempt_queries import AttemptQueries, RunningAttempt
from highnoon.shared.store.nodes import Nodes, open_slots
from highnoon.shared.store.queries import LedgerQueries
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.studies import StudySummary, fault_line, study_object

_LOOK_S = 0.25
_PAUSE_PER_LOOK = 10
"""A look at 100,000 trials takes a quarter of a second of PostgreSQL: it may have a tenth of the time."""
_LINE_S = 2.0
_PACE_OF = 30
"""The pace is the average of at most so many trials: an hour ago other parameters may have made them slower."""


_LEAST_ROWS = 3
_OTHER_ROWS = 8
"""Of the screen: progress, headings, what does not fit, and the shell's own line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedStudy:
    """A study at one reading. `per_minute` is None before this watch has seen a trial end."""

    study: StudySummary
    per_minute: float | None

    @property
    def eta_s(self) -> float | None:
        """Seconds to the last trial at this rate; None where nothing runs, since then nothing comes nearer."""
        left = self.study.total - self.study.closed
        return left / self.per_minute * 60 if self.per_minute and left and self.study.running else None


class Display(ABC):
    """Shows one reading after the other."""

    @abstractmethod
    def show(self, watched: WatchedStudy) -> None:
        """Called several times a second."""

    @abstractmethod
    def say(self, line: str) -> None:
        """One line beside the progress."""

    def close(self) -> None:  # noqa: B027 - most need nothing
        """The last one was shown."""


class Pace:
    """Trials per minute of the time in which any ran, of the last ones that this watch saw to end.

    Neither what workers need to get ready is their pace, nor a pause.
    """

    def __init__(self, done_before: int) -> None:
        self._ended: deque[tuple[float, int]] = deque([(0.0, done_before)], maxlen=_PACE_OF + 1)
        self._busy_s = 0.0
        self._busy_since: float | None = None

    def per_minute(self, study: StudySummary, now: float) -> float | None:
        """None before the first trial has ended."""
        if self._busy_since is not None:
            self._busy_s += now - self._busy_since
        self._busy_since = now if study.running else None
        if study.closed != self._ended[-1][1]:
            self._ended.append((self._busy_s, study.closed))
        (begun, before), (ended, closed) = self._ended[0], self._ended[-1]
        return (closed - before) / (ended - begun) * 60 if closed > before and ended > begun else None


def watch(
    name: str, access: Access, console: Console, *, go_on: Callable[[Say], bool], on: Display | None = None
) -> StudySummary | None:
    """Shows the study until it is over, and returns it then; None when `go_on` ended the watch."""
    display = on or (LiveView(console) if console.is_terminal else Lines(console))
    queries = LedgerQueries(access.database)
    pace = Pace(access.studies.counts(access.studies.get(name).id).closed)
    away = False
    shown_fault: str | None = None
    try:
        while True:
            began = time.monotonic()
            try:
                study = StudySummary.of_ledger(queries.progress_of(access.studies.get(name)))
                watched = WatchedStudy(study=study, per_minute=pace.per_minute(study, time.monotonic()))
                display.show(watched)
                fault = study.record.fault if study.record else None
                if fault is not None and fault != shown_fault:
                    shown_fault = fault
                    display.say(fault_line(fault))
                away = False
                if study.is_over:
                    return study
            except ServiceUnavailable as error:
                if not away:
                    display.say(f"{error}; training goes on, waiting for it")
                away = True
            if not go_on(display.say):
                return None
            time.sleep(max(_LOOK_S, _PAUSE_PER_LOOK * (time.monotonic() - began)))
    finally:
        display.close()


def progress_line(watched: WatchedStudy) -> str:
    """One line: best, running, pruned, failed, rate, time to go."""
    study = watched.study
    if not study.running and not study.closed and not study.is_over:
        has_fault = study.record is not None and study.record.fault is not None
        return "nothing runs yet" if has_fault else "nothing runs yet: waiting for a free worker"
    parts = [
        # Several objectives have no best value.
        *([] if "," in study.direction else [f"best {value_cell(study.best)}"]),
        f"{study.running} running",
        f"{study.pruned} pruned",
        f"{study.failed} failed",
    ]
    if watched.per_minute is not None:
        parts.append(f"{watched.per_minute:.1f} trials/min")
    if watched.eta_s is not None and not study.is_over:
        parts.append(f"ETA {time_cell(watched.eta_s)}")
    return "  ".join(parts)


def bar(study: StudySummary) -> Table:
    """One line as wide as the terminal: name, bar, trials."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    drawn = ProgressBar(total=max(study.asked, 1), completed=study.closed)
    grid.add_row(Text(study.name, style="bold"), drawn, f"{study.closed}/{study.asked}")
    return grid


class Lines(Display):
    """A line when something has changed, but not more often than every other second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[int, int] | None = None
        self._shown_at = 0.0

    def show(self, watched: WatchedStudy) -> None:
        study = watched.study
        now, seen = time.monotonic(), (study.closed, study.running)
        if seen == self._shown or (now - self._shown_at < _LINE_S and not study.is_over):
            return
        self._shown, self._shown_at = seen, now
        self.say(f"{study.name}  {study.closed}/{study.asked}  {progress_line(watched)}")

    def say(self, line: str) -> None:
        say(self._console, line)


class Objects(Display):
    """An object of JSON a line when something has changed, for programs."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._shown = ""

    def show(self, watched: WatchedStudy) -> None:
        line = dumps(study_object(watched.study))
        if line != self._shown:
            self._shown = line
            self._write(line)

    def say(self, line: str) -> None:
        self._write(dumps({"note": line}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What runs of one study, and how many slots there are for all studies."""

    running: Sequence[RunningAttempt]
    total: int
    busy: int

    @classmethod
    def of(cls, name: str, access: Access, settings: Settings) -> Self:
        """Reads the ledger."""
        everything = AttemptQueries(access.database).running()
        return cls(
            running=[attempt for attempt in everything if attempt.study == name],
            total=open_slots(Nodes(access.database).present(settings)),
            busy=len(everything),
        )


class LiveView(Display):
    """Some lines of a terminal that are drawn again and again; other lines scroll above them.

    With `read_slots` there is a line for each slot that runs a trial of the study.
    """

    def __init__(self, console: Console, read_slots: Callable[[str], Slots] | None = None) -> None:
        self._read_slots = read_slots
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._live.start()

    def show(self, watched: WatchedStudy) -> None:
        slots = self._read_slots(watched.study.name) if self._read_slots else None
        self._live.update(drawn(watched, slots, rows=max(_LEAST_ROWS, self._live.console.height - _OTHER_ROWS)))

    def say(self, line: str) -> None:
        say(self._live.console, line, style="yellow")

    def close(self) -> None:
        self._live.stop()


def drawn(watched: WatchedStudy, slots: Slots | None = None, *, rows: int = 0) -> Group:
    """The whole view, with at most so many of the slots."""
    parts: list[RenderableType] = [bar(watched.study), Text(progress_line(watched))]
    if slots is None or watched.study.is_over:
        return Group(*parts)
    shown = slots.running[:rows]
    if shown:
        headings, *lines = slot_lines(shown)
        parts += [Text(), Text(headings, style="bold")]
        parts += [Text(line, overflow="ellipsis", no_wrap=True) for line in lines]
    return Group(*parts, Text(), Text(_rest(watched.study, slots, len(shown)), style="dim"))


def slot_lines(running: Sequence[RunningAttempt]) -> list[str]:
    """What each slot runs since when, below headings."""
    rows = [("slot", "trial", "attempt", "step", "memory", "runs for")]
    for attempt in running:
        rows.append(
            (
                f"{attempt.host}:{attempt.pid}",
                "-" if attempt.trial_number is None else str(attempt.trial_number),
                str(attempt.attempt),
                "-" if attempt.step is None else str(attempt.step),
                size_cell(attempt.rss_bytes),
                time_cell(attempt.age_s),
            )
        )
    return aligned(rows, right=range(1, 6))


def _rest(study: StudySummary, slots: Slots, shown: int) -> str:
    hidden = len(slots.running) - shown
    parts = [
        f"… and {hidden} more" if hidden else "",
        f"{slots.busy} of {slots.total} slots busy" if slots.total else "no worker is there",
        trials_wait(study.waiting) if study.waiting else "nothing waits",
        "paused" if study.state == "paused" else "",
        "Ctrl-C leaves",
    ]
    return "; ".join(filter(None, parts))
