"""Figures as plotly's JSON, built from plain trials. Pure: no I/O, no plotly, no Optuna.

Written here and not taken from `optuna.visualization` for three reasons: at 10,000 trials its figures are megabytes
(here whatever a screen cannot show is left out, and the note says so), parallel coordinates there need WebGL and
`unsafe-eval`, and colours must follow the page. A colour is a name with a `$`, which the page replaces by its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from highnoon.webui.charts.attempts import memory, outcomes, timeline
from highnoon.webui.charts.figure import Figure, Question
from highnoon.webui.charts.parameters import contour, importance, parallel, slices
from highnoon.webui.charts.progress import history, intermediate, pareto

__all__ = ["FIGURES", "Figure", "Question"]

FIGURES: Mapping[str, Callable[[Question], Figure]] = {
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
}
"""Every figure by its name in addresses."""
