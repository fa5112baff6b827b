"""The figure of one trial: a curve for each metric that it has logged."""

from __future__ import annotations

import math

from highnoon.shared.domain.metric_history import Curves
from highnoon.shared.views.charts.figure import (
    Figure,
    Json,
    grid,
    layout_axes,
    nothing,
    scatter,
    shortened,
    trace_axes,
)

_MOST_COLUMNS = 3
_FEW_POINTS = 30
"""Of so few each is marked."""


def metric_curves(curves: Curves) -> Figure:
    """A panel for each metric, over its steps; a value that is not finite is a gap."""
    if not curves:
        return nothing("It has logged no metric twice so far: hn.log(step, accuracy=...) in each epoch draws a curve.")
    layout: Json = {"showlegend": False, **grid(len(curves), _MOST_COLUMNS)}
    data: list[Json] = []
    for index, (name, points) in enumerate(curves.items()):
        shown = [(step, value if math.isfinite(value) else None) for step, value in points]
        mode = "lines+markers" if len(points) <= _FEW_POINTS else "lines"
        style = {"line": {"color": "$accent", "width": 2}, "marker": {"color": "$accent", "size": 5}}
        data.append(scatter(name, shown, mode=mode, **style, **trace_axes(index)))
        x, y = layout_axes(index)
        layout |= {x: {}, y: {"title": {"text": shortened(name, 22)}}}
    gaps = sum(not math.isfinite(value) for points in curves.values() for _, value in points)
    values = "value that is" if gaps == 1 else "values that are"
    return Figure(data=data, layout=layout, note=f"{gaps:,} {values} not finite: a gap." if gaps else "")
