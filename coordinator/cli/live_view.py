"""The live view of `watch`: the study's progress, and below it a line for each slot that runs a trial of it.

Draws what it is given; one look at the slots is `Slots.of`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text
from typing_extensions import Self

from highnoon.coordinator.cli.progress import Standing, bar, summary
from highnoon.coordinator.cli.report import aligned, spelled_bytes, spelled_s, spelled_waiting
from highnoon.shared.domain.states import TicketState, WorkerState
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.runtime.terminal import say
from highnoon.shared.store.access import Access
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.overview import Overview, RunningAttempt
from highnoon.shared.store.studies import StudyRecord

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
    def of(cls, record: StudyRecord, access: Access, settings: Settings) -> Self:
        """One look."""
        everything = Overview(access.database).running()
        nodes = Nodes(access.database).workers(silent_for_s=settings.presence_s * 4)
        return cls(
            running=[attempt for attempt in everything if attempt.study == record.name],
            total=sum(node.slots for node in nodes if node.state is WorkerState.ACTIVE),
            busy=len(everything),
        )


class Board:
    """A part of a terminal that is drawn again and again; what is said scrolls above it."""

    def __init__(self, console: Console, look: Callable[[StudyRecord], Slots]) -> None:
        self._look = look
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._live.start()

    @classmethod
    def of(cls, access: Access, settings: Settings, console: Console) -> Self:
        """A board that looks at the ledger."""
        return cls(console, lambda record: Slots.of(record, access, settings))

    def show(self, standing: Standing) -> None:
        slots = self._look(standing.record)
        console = self._live.console
        self._live.update(drawn(standing, slots, rows=max(_LEAST_ROWS, console.height - _OTHER_ROWS)))

    def say(self, line: str) -> None:
        say(self._live.console, line, style="yellow")

    def close(self) -> None:
        self._live.stop()


def drawn(standing: Standing, slots: Slots, *, rows: int) -> RenderableType:
    """The whole board, with at most so many slots."""
    parts: list[RenderableType] = [bar(standing), Text(summary(standing))]
    if standing.record.is_over:
        return Group(*parts)
    shown = slots.running[:rows]
    if shown:
        headings, *lines = slot_lines(shown)
        parts += [
            Text(),
            Text(headings, style="bold"),
            *(Text(line, overflow="ellipsis", no_wrap=True) for line in lines),
        ]
    parts += [Text(), Text(_rest(standing, slots, len(shown)), style="dim")]
    return Group(*parts)


def slot_lines(running: Sequence[RunningAttempt]) -> list[str]:
    """Who runs what since when, below headings."""
    rows = [("slot", "trial", "attempt", "step", "memory", "runs for")]
    for attempt in running:
        rows.append(
            (
                f"{attempt.host}:{attempt.pid}",
                "-" if attempt.trial_number is None else str(attempt.trial_number),
                str(attempt.attempt),
                "-" if attempt.step is None else str(attempt.step),
                spelled_bytes(attempt.rss_bytes),
                spelled_s(attempt.age_s),
            )
        )
    return aligned(rows, right=range(1, 6))


def _rest(standing: Standing, slots: Slots, shown: int) -> str:
    by_state = standing.counts.by_state
    waiting = by_state.get(TicketState.WAITING, 0) + by_state.get(TicketState.QUEUED, 0)
    hidden = len(slots.running) - shown
    parts = [
        f"… and {hidden} more" if hidden else "",
        f"{slots.busy} of {slots.total} slots busy" if slots.total else "no worker is there",
        spelled_waiting(waiting) if waiting else "nothing waits",
        "paused" if standing.record.state == "paused" else "",
        "Ctrl-C leaves",
    ]
    return "; ".join(filter(None, parts))
