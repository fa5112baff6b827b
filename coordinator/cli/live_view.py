"""The live view of `watch`: the study's progress, and below it a line for each slot that runs a trial of it.

Draws the values that it gets; `Slots.of` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text
from typing_extensions import Self

from highnoon.coordinator.cli.progress import WatchedStudy, bar, progress_line
from highnoon.coordinator.cli.tables import aligned, size_cell, time_cell, trials_wait
from highnoon.shared.domain.states import WorkerState
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.runtime.terminal import say
from highnoon.shared.store.access import Access
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.queries import LedgerQueries, RunningAttempt
from highnoon.shared.views.studies import StudySummary

_LEAST_ROWS = 3
_OTHER_ROWS = 8
"""Of the screen: progress, headings, what does not fit, and the shell's own line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What runs of one study, and how many slots there are for all studies."""

    running: Sequence[RunningAttempt]
    total: int
    busy: int

    @classmethod
    def of(cls, name: str, access: Access, settings: Settings) -> Self:
        """Reads the ledger."""
        everything = LedgerQueries(access.database).running()
        nodes = Nodes(access.database).workers(silent_for_s=settings.presence_s * 4)
        return cls(
            running=[attempt for attempt in everything if attempt.study == name],
            total=sum(node.slots for node in nodes if node.state is WorkerState.ACTIVE),
            busy=len(everything),
        )


class LiveView:
    """A part of a terminal that is drawn again and again; other lines scroll above it."""

    def __init__(self, console: Console, read: Callable[[str], Slots]) -> None:
        self._read = read
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._live.start()

    @classmethod
    def of(cls, access: Access, settings: Settings, console: Console) -> Self:
        """A view that reads the ledger."""
        return cls(console, lambda name: Slots.of(name, access, settings))

    def show(self, watched: WatchedStudy) -> None:
        slots = self._read(watched.study.name)
        console = self._live.console
        self._live.update(drawn(watched, slots, rows=max(_LEAST_ROWS, console.height - _OTHER_ROWS)))

    def say(self, line: str) -> None:
        say(self._live.console, line, style="yellow")

    def close(self) -> None:
        self._live.stop()


def drawn(watched: WatchedStudy, slots: Slots, *, rows: int) -> RenderableType:
    """The whole view, with at most so many slots."""
    parts: list[RenderableType] = [bar(watched.study), Text(progress_line(watched))]
    if watched.study.is_over:
        return Group(*parts)
    shown = slots.running[:rows]
    if shown:
        headings, *lines = slot_lines(shown)
        parts += [
            Text(),
            Text(headings, style="bold"),
            *(Text(line, overflow="ellipsis", no_wrap=True) for line in lines),
        ]
    parts += [Text(), Text(_rest(watched.study, slots, len(shown)), style="dim")]
    return Group(*parts)


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
