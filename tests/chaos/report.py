"""What a run reports: its faults, the seconds that each cost, how long recovery took, and what was wrong."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.books import Attempt
from tests.chaos.faults import FAULTS, Hit


@dataclass
class Done:
    """A fault that was done, at this time of the wall clock."""

    kind: str
    at: float
    hit: Hit


@dataclass
class Report:
    """The result of one run."""

    seed: int
    wrong: list[str] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    planned: int = 0
    recovery: dict[str, list[float]] = field(default_factory=dict)
    given_back: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 0
    restarts: int = 0
    loads: list[float] = field(default_factory=list)
    """Readings of the load average while the faults were made."""

    def text(self) -> str:
        kinds = {kind: sum(done.kind == kind for done in self.done) for kind in FAULTS}
        times = sorted(seconds for found in self.recovery.values() for seconds in found)
        lines = [
            f"seed {self.seed}: {'clean' if not self.wrong else 'FAILED'}, {len(self.done)} of {self.planned} faults, "
            f"{self.attempts} attempts, {self.restarts} restarts, {self.seconds:.0f} s, "
            f"{_load(self.loads)}lost {sum(self.lost.values()) / max(1, len(self.done)):.1f} s a fault, "
            f"{_percentiles(times)}",
            "  " + ", ".join(f"{kind} {count}" for kind, count in kinds.items() if count),
            *(f"  not done: {done.kind}, {done.hit.note}" for done in self.done if done.hit.note),
            *(f"  ! {text}" for text in self.wrong),
        ]
        return "\n".join(lines)


def recovery_times(done: Sequence[Done], attempts: Sequence[Attempt]) -> dict[str, list[float]]:
    """Seconds from a fault until what it interrupted runs again; without victims, until any attempt starts."""
    starts = {(attempt.ticket, attempt.attempt): attempt for attempt in attempts}
    found: dict[str, list[float]] = {}
    for fault in done:
        times = []
        for slot in fault.hit.victims:
            if slot.attempt is None:
                continue
            ended = starts.get((slot.ticket, slot.attempt))
            following = starts.get((slot.ticket, slot.attempt + 1))
            if ended is not None and ended.ending != "completed" and following is not None:
                times.append(following.started_at - fault.at)
        if not fault.hit.victims:
            times = [a.started_at - fault.at - fault.hit.lasts_s for a in attempts if a.started_at > fault.at][:1]
        found.setdefault(fault.kind, []).extend(max(0.0, seconds) for seconds in times)
    return found


def times_until_given_back(done: Sequence[Done], attempts: Sequence[Attempt]) -> dict[str, list[float]]:
    """Seconds from a fault until the attempts that it interrupts have ended in the books: their tickets may run again.

    Recovery lasts longer where other faults, or a busy machine, leave no node that could take them.
    """
    ends = {(attempt.ticket, attempt.attempt): attempt for attempt in attempts}
    found: dict[str, list[float]] = {}
    for fault in done:
        for slot in fault.hit.victims:
            ended = ends.get((slot.ticket, slot.attempt or 0))
            if ended is not None and ended.ending != "completed" and ended.ended_at is not None:
                found.setdefault(fault.kind, []).append(max(0.0, ended.ended_at - fault.at))
    return found


def seconds_lost(done: Sequence[Done], attempts: Sequence[Attempt]) -> dict[str, float]:
    """Seconds from the start of an attempt that did not count to the start of the next one, by the fault behind it.

    That is the one whose victim it was, else the last one before its end.
    """
    starts = {(attempt.ticket, attempt.attempt): attempt.started_at for attempt in attempts}
    lost: dict[str, float] = {}
    for attempt in attempts:
        following = starts.get((attempt.ticket, attempt.attempt + 1))
        if following is None or attempt.ended_at is None:
            continue
        before = [fault for fault in done if attempt.started_at <= fault.at <= attempt.ended_at]
        own = [
            f
            for f in before
            for slot in f.hit.victims
            if (slot.ticket, slot.attempt) == (attempt.ticket, attempt.attempt)
        ]
        before = before or [fault for fault in done if fault.at <= attempt.ended_at]
        for fault in (own or before)[-1:]:
            lost[fault.kind] = lost.get(fault.kind, 0.0) + following - attempt.started_at
    return lost


def _load(loads: Sequence[float]) -> str:
    """Times of two runs can be compared only where both machines were equally busy."""
    return f"load {statistics.mean(loads):.1f}, " if loads else ""


def _percentiles(times: Sequence[float], *, of: str = "recovery ") -> str:
    if not times:
        return "no recovery"
    p95 = times[min(len(times) - 1, int(0.95 * len(times)))]
    return f"{of}p50 {statistics.median(times):.2f} s, p95 {p95:.2f} s"


def summary(reports: Sequence[Report]) -> str:
    """Faults by kind, seconds lost by each and the time of recovery, over all runs."""
    lines = [f"{'fault':24} {'times':>5} {'lost s':>7}"]
    everything: list[float] = []
    for kind in FAULTS:
        count = sum(done.kind == kind for report in reports for done in report.done)
        times = sorted(seconds for report in reports for seconds in report.recovery.get(kind, []))
        everything += times
        if count:
            lost_s = sum(report.lost.get(kind, 0.0) for report in reports) / count
            back = sorted(seconds for report in reports for seconds in report.given_back.get(kind, []))
            given_back = f"; given back {_percentiles(back, of='')}" if back else ""
            recovered = _percentiles(times) if times else ""
            lines.append(f"{kind:24} {count:5} {lost_s:7.1f}  {recovered}{given_back}")
    clean = sum(not report.wrong for report in reports)
    count = sum(len(report.done) for report in reports)
    lost_s = sum(sum(report.lost.values()) for report in reports) / max(1, count)
    loads = [load for report in reports for load in report.loads]
    lines.append(f"{'all':24} {count:5} {lost_s:7.1f}  {_load(loads)}{_percentiles(sorted(everything))}")
    return "\n".join([*lines, f"{clean} of {len(reports)} seeds clean"])
