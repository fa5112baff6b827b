"""Figures of attempts: which slot ran what when, how they ended and why, how much memory they took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING

from highnoon.shared.domain.states import MEMORY_CAUSES, Ending
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.charts.figure import Figure, FigureInput, horizontal_bars, left_out, notes, nothing, scatter
from highnoon.shared.views.formats import duration, plural, words
from highnoon.shared.views.trials import cause_of, ending_of, has_ended

if TYPE_CHECKING:
    from highnoon.shared.store.attempt_queries import AttemptSpan


def timeline(asked: FigureInput) -> Figure:
    """Which slot ran which trial when, by how it ended: gaps are unused time."""
    if not asked.spans:
        return nothing("No attempt was made yet." if asked.causes else "Only trials that workers run have a timeline.")
    now = max(span.ended_at or span.started_at for span in asked.spans)
    lanes = _lanes(asked.spans)
    by_ending: dict[str, list[AttemptSpan]] = defaultdict(list)
    for span in asked.spans:
        by_ending[str(span.ending or "running")].append(span)
    data = []
    for ending in sorted(by_ending, key=_place_of_ending):
        spans = by_ending[ending]
        took = [max(0.001, (span.ended_at or max(now, span.started_at)) - span.started_at) for span in spans]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": words(ending),
                "y": [lanes[span.host, span.pid] for span in spans],
                "base": [span.started_at * 1000 for span in spans],
                "x": [seconds * 1000 for seconds in took],
                "text": [_span_text(span, seconds) for span, seconds in zip(spans, took, strict=True)],
                "textposition": "none",
                "hoverinfo": "text",
                "marker": {"color": _COLORS.get(ending, "$muted"), "line": {"width": 0}},
            }
        )
    layout = {
        "barmode": "overlay",
        "bargap": 0.25,
        "xaxis": {"type": "date"},
        "yaxis": {"automargin": True, "categoryorder": "category descending"},
        "height": max(220, 90 + 26 * len({*lanes.values()})),
    }
    return Figure(data=data, layout=layout, note=_older(asked))


def outcomes(asked: FigureInput) -> Figure:
    """How attempts ended and why, repeated ones included."""
    causes = list(asked.causes) or _causes_in(asked.trials)
    if not causes:
        return nothing("No trial has ended yet.")
    ranked = sorted(causes, key=lambda row: row[2])
    names = [f"{words(ending)}: {words(cause)}" if cause else words(ending) for ending, cause, _ in ranked]
    counts = [count for _, _, count in ranked]
    colors = [_COLORS.get(str(ending), "$muted") for ending, _, _ in ranked]
    bar = horizontal_bars(names, counts, [f"{count:,}" for count in counts], colors)
    layout = {
        "yaxis": {"automargin": True},
        "xaxis": {"rangemode": "tozero"},
        "height": max(220, 60 + 30 * len(ranked)),
    }
    return Figure(data=[bar], layout=layout)


def memory(asked: FigureInput) -> Figure:
    """The largest memory of each attempt against its limit; those that were stopped for it stand out."""
    measured = [span for span in asked.spans if span.peak_bytes and span.trial_number is not None]
    if not measured:
        return nothing("No attempt has reported its memory yet.")
    data = []
    for label, wanted, marker in (
        ("in bounds", False, {"color": "$accent", "size": 5, "opacity": 0.75}),
        ("stopped for it", True, {"color": "$stopped", "size": 10, "symbol": "x"}),
    ):
        spans = [span for span in measured if (span.ending is Ending.STOPPED and span.cause in MEMORY_CAUSES) is wanted]
        points = [(span.trial_number or 0, (span.peak_bytes or 0) / 1e9) for span in spans]
        if points:
            data.append(scatter(label, points, marker=marker))
    limits = sorted((span.trial_number or 0, span.limit_bytes / 1e9) for span in measured if span.limit_bytes)
    if limits:
        line = {"color": "$muted", "width": 1, "dash": "dash"}
        data.append({**scatter("limit", limits), "mode": "lines", "line": {**line, "shape": "hv"}})
    layout = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": "peak, GB"}, "rangemode": "tozero"}}
    without = len(asked.spans) - len(measured)
    return Figure(
        data=data,
        layout=layout,
        note=notes(_older(asked), f"{plural(without, 'attempt')} without a reading." if without else ""),
    )


_COLORS = {
    "completed": "$accent",
    "complete": "$accent",
    "pruned": "$pruned",
    "stopped": "$stopped",
    "failed": "$failed",
    "fail": "$failed",
    "timed_out": "$failed",
    "killed": "$lost",
    "lost": "$lost",
    "released": "$muted",
    "cancelled": "$muted",
    "running": "$running",
}


def _older(asked: FigureInput) -> str:
    """The note about attempts before those that are drawn."""
    total = sum(count for _, _, count in asked.causes) + sum(span.ending is None for span in asked.spans)
    return left_out(len(asked.spans), total, what="newest attempts")


def _lanes(spans: Iterable[AttemptSpan]) -> dict[tuple[str, int], str]:
    """Slots of a host are numbered: a supervisor's pid means nothing to people, and another one may have its slot."""
    lives: dict[tuple[str, int], tuple[float, float]] = {}
    for span in spans:
        began, ended = lives.get((span.host, span.pid), (math.inf, 0.0))
        lives[span.host, span.pid] = min(began, span.started_at), max(ended, span.ended_at or math.inf)
    lanes: dict[tuple[str, int], str] = {}
    busy_until: dict[str, list[float]] = defaultdict(list)
    for (host, pid), (began, ended) in sorted(lives.items(), key=itemgetter(1)):
        slots = busy_until[host]
        slot = next((slot for slot, until in enumerate(slots) if until <= began), len(slots))
        slots[slot : slot + 1] = [ended]
        lanes[host, pid] = f"{host} · {slot}"
    return lanes


def _span_text(span: AttemptSpan, seconds: float) -> str:
    number = "–" if span.trial_number is None else span.trial_number
    why = f", {words(span.cause)}" if span.cause else ""
    return f"trial {number}, attempt {span.attempt}: {words(span.ending or 'running')}{why}, {duration(seconds)}"


def _place_of_ending(ending: str) -> int:
    order = list(_COLORS)
    return order.index(ending) if ending in order else len(order)


def _causes_in(trials: Iterable[Trial]) -> list[tuple[str, str | None, int]]:
    counted = Counter((ending_of(trial), cause_of(trial) or None) for trial in trials if has_ended(trial))
    return [(ending, cause, count) for (ending, cause), count in counted.items()]
