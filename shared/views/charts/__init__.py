"""Figures as plotly's JSON, built from plain trials: for the pages and for `plot`. Pure: no I/O, no plotly, no Optuna.

Not taken from `optuna.visualization` for three reasons: at 10,000 trials its figures are megabytes (here whatever a
screen cannot show is left out, and the note gives the numbers), parallel coordinates there need WebGL and
`unsafe-eval`, and colours must follow the page. A colour is a name with a `$`, which the page replaces by its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from highnoon.shared.views.charts.attempts import memory, outcomes, timeline
from highnoon.shared.views.charts.figure import Figure, FigureInput
from highnoon.shared.views.charts.metrics import metric_curves
from highnoon.shared.views.charts.objectives import hypervolume, pareto
from highnoon.shared.views.charts.parameters import contour, importance, parallel, slices
from highnoon.shared.views.charts.progress import history, intermediate

__all__ = ["FIGURES", "MOST_SPANS", "NEEDS_ATTEMPTS", "TITLES", "Figure", "FigureInput", "metric_curves"]

FIGURES: Mapping[str, Callable[[FigureInput], Figure]] = {
    "history": history,
    "slice": slices,
    "parallel": parallel,
    "contour": contour,
    "importance": importance,
    "intermediate": intermediate,
    "timeline": timeline,
    "outcomes": outcomes,
    "memory": memory,
    "pareto": pareto,
    "hypervolume": hypervolume,
}
"""Every figure by its name in addresses."""

NEEDS_ATTEMPTS = frozenset({"timeline", "outcomes", "memory"})
"""Figures of the ledger's attempts (`FigureInput.spans` and `causes`)."""

MOST_SPANS = 1500
"""How many of the newest attempts such a figure shows."""

TITLES: Mapping[str, str] = {
    "history": "optimisation history",
    "slice": "each parameter alone",
    "parallel": "all parameters together",
    "contour": "two parameters at a time",
    "importance": "importance of parameters",
    "intermediate": "reports of each trial",
    "timeline": "what ran when",
    "outcomes": "how attempts ended",
    "memory": "memory of each attempt",
    "pareto": "what no other trial beats in all",
    "hypervolume": "hypervolume of the front",
}
"""What stands above a figure in a file."""
