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

from coordinator.report import failed_count, pruned_count, spelled, spelled_s
from shared.errors import ServiceUnavailable
from shared.ledger import Studies
from shared.ledger.studies import StudyCounts, StudyRecord
from shared.states import TicketState

_LOOK_S = 0.25
_LINE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a study stands at one look. `elapsed_s` counts from this watcher's start, as `done_before` does."""

    record: StudyRecord
    counts: StudyCounts
    best: float | None
    elapsed_s: float
    done_before: int

    @property
    def wanted(self) -> int:
        """Trials that are to be closed in the end."""
        return self.counts.total - self.counts.by_state.get(TicketState.CANCELLED, 0)

    @property
    def per_minute(self) -> float | None:
        """Closed trials per minute since this watcher began; None before the first."""
        done = self.counts.closed - self.done_before
        return done / self.elapsed_s * 60 if done and self.elapsed_s > 0 else None

    @property
    def eta_s(self) -> float | None:
        """Seconds to the last trial at this rate."""
        rate = self.per_minute
        return None if rate is None else (self.wanted - self.counts.closed) / rate * 60


class Display(Protocol):
    """Shows one Standing after the other."""

    def show(self, standing: Standing) -> None:
        """Called several times a second."""

    def say(self, line: str) -> None:
        """One line about something else than progress (an outage, a restart)."""

    def close(self) -> None:
        """The last one was shown."""


def watch(name: str, studies: Studies, console: Console, *, go_on: Callable[[Display], bool]) -> Standing | None:
    """Shows the study until it is over, and returns how it stands then; None when `go_on` ended the watch."""
    display: Display = _Bar(console) if console.is_terminal else _Lines(console)
    began, done_before = time.monotonic(), studies.counts(studies.get(name).id).closed
    away = False
    try:
        while True:
            try:
                standing = _look(name, studies, time.monotonic() - began, done_before)
                display.show(standing)
                away = False
                if standing.record.is_over:
                    return standing
            except ServiceUnavailable as error:
                if not away:
                    display.say(f"{error}; training goes on, waiting for it")
                away = True
            if not go_on(display):
                return None
            time.sleep(_LOOK_S)
    finally:
        display.close()


def _look(name: str, studies: Studies, elapsed_s: float, done_before: int) -> Standing:
    record = studies.get(name)
    maximize = record.spec["direction"] == "maximize"
    return Standing(
        record=record,
        counts=studies.counts(record.id),
        best=studies.best_value(record.id, maximize=maximize),
        elapsed_s=elapsed_s,
        done_before=done_before,
    )


def summary(standing: Standing) -> str:
    """One line: best, running, pruned, failed, rate, time to go."""
    counts, rate = standing.counts, standing.per_minute
    parts = [
        f"best {'-' if standing.best is None else spelled(standing.best)}",
        f"{counts.running} running",
        f"{pruned_count(counts)} pruned",
        f"{failed_count(counts)} failed",
    ]
    if rate is not None:
        parts.append(f"{rate:.1f} trials/min")
    if standing.eta_s and not standing.record.is_over:
        parts.append(f"ETA {spelled_s(standing.eta_s)}")
    return "  ".join(parts)


class _Bar:
    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._live.start()

    def show(self, standing: Standing) -> None:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        done, wanted = standing.counts.closed, standing.wanted
        grid.add_row(
            Text(standing.record.name, style="bold"), ProgressBar(total=wanted, completed=done), f"{done}/{wanted}"
        )
        self._live.update(Group(grid, Text(summary(standing), no_wrap=True, overflow="ellipsis")))

    def say(self, line: str) -> None:
        self._live.console.print(line, style="yellow", highlight=False)

    def close(self) -> None:
        self._live.stop()


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[int, int] | None = None
        self._shown_at = 0.0

    def show(self, standing: Standing) -> None:
        now, seen = time.monotonic(), (standing.counts.closed, standing.counts.running)
        if seen == self._shown or (now - self._shown_at < _LINE_S and not standing.record.is_over):
            return
        self._shown, self._shown_at = seen, now
        self.say(f"{standing.record.name}  {standing.counts.closed}/{standing.wanted}  {summary(standing)}")

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)

    def close(self) -> None:
        return
