"""How a study handle shows itself: a line of counts, and a table for notebooks. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from highnoon.shared.domain.trial import Trial

if TYPE_CHECKING:
    from highnoon.shared.views.studies import StudySummary


def counts_line(summary: StudySummary) -> str:
    """The best value and the trials by how they ended; what there is none of is left out."""
    best = None if summary.best is None else f"best {summary.best:.6g}"
    counts = {name: getattr(summary, name) for name in ("complete", "pruned", "failed", "running", "waiting")}
    return "  ".join(filter(None, [best, *(f"{count} {name}" for name, count in counts.items() if count)]))


def as_html(summary: StudySummary, best: Sequence[Trial]) -> str:
    """How far it is, and its best trials."""
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
    line = f"{summary.state}, {summary.over} of {summary.total} trials, {counts_line(summary)}"
    return f"<b>{html.escape(summary.name)}</b>: {html.escape(line)}<table><tr>{head}</tr>{rows}</table>"
