"""How a study handle shows itself: a line of counts, and a table with a drawing for notebooks. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from highnoon.shared.domain.trial import Trial

if TYPE_CHECKING:
    from highnoon.shared.views.studies import StudySummary


def counts_line(summary: StudySummary) -> str:
    """The best value and the trials by how they ended; what there is none of is left out."""
    best = None if summary.best is None else f"best {summary.best:.6g}"
    counts = {
        name: getattr(summary, name) for name in ("complete", "pruned", "failed", "stopped", "running", "waiting")
    }
    return "  ".join(filter(None, [best, *(f"{count} {name}" for name, count in counts.items() if count)]))


def history_svg(values: Sequence[float], *, maximize: bool, width: int = 480, height: int = 120) -> str:
    """Values in the order of their trials as points, and the best so far as a line; nothing below two finite ones."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)

    def place(index: int, value: float) -> str:
        across = 4 + index * (width - 8) / (len(finite) - 1)
        return f"{across:.1f},{4 + (height - 8) * (high - value) / ((high - low) or 1.0):.1f}"

    best = list(accumulate(finite, max if maximize else min))
    line = " ".join(place(index, value) for index, value in enumerate(best))
    places = [place(index, value).split(",") for index, value in enumerate(finite)]
    points = "".join(f'<circle cx="{across}" cy="{down}" r="2" fill="#999"/>' for across, down in places)
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="values of its trials, best {best[-1]:.6g}">'
        f'{points}<polyline points="{line}" fill="none" stroke="#06c" stroke-width="2"/></svg>'
    )


def as_html(summary: StudySummary, best: Sequence[Trial], values: Sequence[float] = ()) -> str:
    """How far it is, its history, and its best trials."""
    goals = list(summary.spec.get("objectives") or ())
    names = list(best[0].params) if best else []
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("trial", *(goals or ["value"]), *names))
    rows = "".join(
        f"<tr><td>{trial.number}</td>"
        + "".join(f"<td>{value:.6g}</td>" for value in trial.values or (trial.value or 0.0,))
        + "".join(f"<td>{html.escape(str(trial.params.get(name)))}</td>" for name in names)
        + "</tr>"
        for trial in best
    )
    line = f"{summary.state}, {summary.closed} of {summary.total} trials, {counts_line(summary)}"
    history = history_svg(values, maximize=summary.maximize)
    return f"<b>{html.escape(summary.name)}</b>: {html.escape(line)}<br>{history}<table><tr>{head}</tr>{rows}</table>"
