"""Live progress of one study: a bar in a terminal, plain lines elsewhere. Reads the ledger, changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from highnoon.coordinator.cli.report import (
    as_json_line,
    failed_count,
    pruned_count,
    spelled,
    spelled_s,
    study_object,
    wanted_count,
)
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.runtime.terminal import Say, say
from highnoon.shared.store.studies import Studies, StudyCounts, StudyRecord

_LOOK_S = 0.25
_PAUSE_PER_LOOK = 10
"""A look at 100,000 trials takes a quarter of a second of PostgreSQL: it may have a tenth of the time."""
_LINE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a study stands at one look. `per_minute` is None before this watch has seen a trial end."""

    record: StudyRecord
    counts: StudyCounts
    best: float | None
    per_minute: float | None

    @property
    def eta_s(self) -> float | None:
        """Seconds to the last trial at this rate."""
        left = wanted_count(self.counts) - self.counts.closed
        return left / self.per_minute * 60 if self.per_minute and left else None


class Display(Protocol):
    """Shows one Standing after the other."""

    def show(self, standing: Standing) -> None:
        """Called several times a second."""

    def say(self, line: str) -> None:
        """One line beside the progress."""

    def close(self) -> None:
        """The last one was shown."""


class Pace:
    """Trials per minute since the first one was seen to run: what workers need to get ready is not their pace."""

    def __init__(self, done_before: int) -> None:
        self._done_before = done_before
        self._running_since: float | None = None

    def per_minute(self, counts: StudyCounts, now: float) -> float | None:
        """None before the first trial has ended."""
        if self._running_since is None and (counts.running or counts.closed > self._done_before):
            self._running_since = now
        done = counts.closed - self._done_before
        if self._running_since is None or not done or now <= self._running_since:
            return None
        return done / (now - self._running_since) * 60


def watch(
    name: str, studies: Studies, console: Console, *, go_on: Callable[[Say], bool], on: Display | None = None
) -> Standing | None:
    """Shows the study until it is over, and returns how it stands then; None when `go_on` ended the watch."""
    display: Display = on or (Bar(console) if console.is_terminal else Lines(console))
    pace = Pace(studies.counts(studies.get(name).id).closed)
    away = False
    try:
        while True:
            began = time.monotonic()
            try:
                standing = _look(name, studies, pace)
                display.show(standing)
                away = False
                if standing.record.is_over:
                    return standing
            except ServiceUnavailable as error:
                if not away:
                    display.say(f"{error}; training goes on, waiting for it")
                away = True
            if not go_on(display.say):
                return None
            time.sleep(max(_LOOK_S, _PAUSE_PER_LOOK * (time.monotonic() - began)))
    finally:
        display.close()


def summary(standing: Standing) -> str:
    """One line: best, running, pruned, failed, rate, time to go."""
    counts = standing.counts
    if not counts.running and not counts.closed and not standing.record.is_over:
        return "nothing runs yet: waiting for a free worker"
    parts = [
        f"best {'-' if standing.best is None else spelled(standing.best)}",
        f"{counts.running} running",
        f"{pruned_count(counts)} pruned",
        f"{failed_count(counts)} failed",
    ]
    if standing.per_minute is not None:
        parts.append(f"{standing.per_minute:.1f} trials/min")
    if standing.eta_s is not None and not standing.record.is_over:
        parts.append(f"ETA {spelled_s(standing.eta_s)}")
    return "  ".join(parts)


def bar(standing: Standing) -> Table:
    """One line as wide as the terminal: name, bar, trials."""
    done, wanted = standing.counts.closed, wanted_count(standing.counts)
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    drawn = ProgressBar(total=max(wanted, 1), completed=done)
    grid.add_row(Text(standing.record.name, style="bold"), drawn, f"{done}/{wanted}")
    return grid


class Bar:
    """Two lines of a terminal that are drawn again and again; what is said scrolls above them."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._live.start()

    def show(self, standing: Standing) -> None:
        self._live.update(Group(bar(standing), Text(summary(standing))))

    def say(self, line: str) -> None:
        say(self._live.console, line, style="yellow")

    def close(self) -> None:
        self._live.stop()


class Lines:
    """A line when something has changed, but not more often than every other second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[int, int] | None = None
        self._shown_at = 0.0

    def show(self, standing: Standing) -> None:
        now, seen = time.monotonic(), (standing.counts.closed, standing.counts.running)
        if seen == self._shown or (now - self._shown_at < _LINE_S and not standing.record.is_over):
            return
        self._shown, self._shown_at = seen, now
        done, wanted = standing.counts.closed, wanted_count(standing.counts)
        self.say(f"{standing.record.name}  {done}/{wanted}  {summary(standing)}")

    def say(self, line: str) -> None:
        say(self._console, line)

    def close(self) -> None:
        return


class Objects:
    """An object of JSON a line when something has changed, for programs."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._shown = ""

    def show(self, standing: Standing) -> None:
        line = as_json_line(study_object(standing.record, standing.counts, standing.best))
        if line != self._shown:
            self._shown = line
            self._write(line)

    def say(self, line: str) -> None:
        self._write(as_json_line({"note": line}))

    def close(self) -> None:
        return


def _look(name: str, studies: Studies, pace: Pace) -> Standing:
    record = studies.get(name)
    counts = studies.counts(record.id)
    return Standing(
        record=record,
        counts=counts,
        best=studies.best_value(record.id, maximize=record.spec["direction"] == "maximize"),
        per_minute=pace.per_minute(counts, time.monotonic()),
    )
