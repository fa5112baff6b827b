"""Figures of parameters: alone, all together, two at a time, and how much each matters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from highnoon.shared.domain.param import Float
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.charts.figure import (
    Figure,
    FigureInput,
    Json,
    Scale,
    axis_of,
    clip,
    coordinate,
    curves,
    every,
    grid,
    horizontal_bars,
    layout_axes,
    left_out,
    named,
    notes,
    nothing,
    scatter,
    shortened,
    thinned_trials,
    trace_axes,
    unit_axis,
)
from highnoon.shared.views.formats import number

_MOST_POINTS_OF_A_PANEL = 500
_MOST_LINES = 250
_CELLS = 20


def slices(asked: FigureInput) -> Figure:
    """The value over each parameter alone."""
    names = asked.shown_params
    trials = asked.completed()
    if not trials or not names:
        return nothing("No trial has completed yet.")
    shown = thinned_trials(trials, _MOST_POINTS_OF_A_PANEL)
    data: list[Json] = []
    layout = grid(len(names), 3 if len(names) <= 6 else 5)
    value_axis: Json = {}
    clip(value_axis, [value for _, value in asked.points()], maximize=asked.maximize)
    for index, name in enumerate(names):
        domain = asked.space[name]
        chosen = [trial for trial in shown if name in trial.params]
        points = [(coordinate(domain, trial.params[name]), asked.value(trial)) for trial in chosen]
        marker = {"color": [trial.number for trial in chosen], "colorscale": "$sequence", "size": 5, "opacity": 0.75}
        data.append(
            scatter(name, points, marker=marker, showlegend=False, **trace_axes(index))
            | {"text": [named(trial) for trial in chosen]}
        )
        x, y = layout_axes(index)
        layout[x] = {**axis_of(domain), "title": {"text": shortened(name, 36)}}
        layout[y] = value_axis
    dropped = left_out(len(shown), len(trials))
    note = notes("The stronger the colour, the later the trial.", dropped, asked.hidden_params)
    return Figure(data=data, layout=layout, note=note)


def parallel(asked: FigureInput) -> Figure:
    """One line per trial across all parameters to its value, the better ones on top."""
    names = asked.shown_params
    sign = -1.0 if asked.maximize else 1.0
    ranked = sorted(asked.completed(), key=lambda trial: (not trial.is_feasible, sign * (trial.value or 0.0)))
    if not ranked or not names:
        return nothing("No trial has completed yet.")
    top = ranked[: _MOST_LINES // 4]
    shown = [*top, *every(ranked[len(top) :], _MOST_LINES - len(top))]
    scales = {name: Scale(asked.space[name]) for name in names}
    values = [trial.value for trial in shown if trial.value is not None]
    value = Scale(Float(min(values), max(values)))
    bands = [("best tenth", "$best", 1.4, 0.5), ("upper half", "$accent", 1.0, 0.45), ("others", "$muted", 0.8, 0.3)]
    cuts = (max(1, len(ranked) // 10), max(1, len(ranked) // 2), len(ranked))
    rank = {trial.number: place for place, trial in enumerate(ranked)}
    data = []
    for (label, color, width, opacity), low, high in reversed(list(zip(bands, (0, *cuts), cuts, strict=False))):
        # A line passes over the axes of parameters that its trial does not have.
        lines = [
            [
                *(
                    (axis, scales[name].place(trial.params[name]))
                    for axis, name in enumerate(names)
                    if name in trial.params
                ),
                (len(names), value.place(trial.value)),
            ]
            for trial in shown
            if low <= rank[trial.number] < high
        ]
        line = {"color": color, "width": width}
        data.append(curves(label, lines, line=line, opacity=opacity, hoverinfo="skip"))
    titles = [*(shortened(name, 24) for name in names), shortened(asked.value_title, 24)]
    axes = [*(scales[name] for name in names), value]
    labels = [_label(index, tick, text) for index, scale in enumerate(axes) for tick, text in scale.ticks()]
    layout = {
        "xaxis": {"tickvals": list(range(len(axes))), "ticktext": titles, "showgrid": True, "zeroline": False},
        # Half a title stands beside the outermost axes; plotly leaves out what does not fit.
        "margin": {"l": max(50, 4 * len(titles[0])), "r": max(14, 4 * len(titles[-1]))},
        "yaxis": {"visible": False, "range": [-0.06, 1.06]},
        "annotations": labels,
        "hovermode": False,
        "meta": [scale.checksum for scale in axes],
    }
    return Figure(data=data, layout=layout, note=notes(left_out(len(shown), len(ranked)), asked.hidden_params))


def contour(asked: FigureInput) -> Figure:
    """The median value in each cell of two parameters' plane, and where trials were; a panel for each pair."""
    if len(asked.completed()) < 2:
        return nothing("Fewer than two trials have completed.")
    pairs = list(combinations(dict.fromkeys(name for name in asked.params if name in asked.space), 2))
    if not pairs:
        return nothing("Choose two different parameters.")
    layout: Json = {"showlegend": False, **(grid(len(pairs)) if len(pairs) > 1 else {})}
    data: list[Json] = []
    shown, total = 0, 0
    for index, (across, up) in enumerate(pairs):
        trials = [trial for trial in asked.completed() if across in trial.params and up in trial.params]
        if len(trials) < 2:
            continue
        points = thinned_trials(trials, _MOST_POINTS_OF_A_PANEL)
        shown, total = max(shown, len(points)), max(total, len(trials))
        scales = Scale(asked.space[across]), Scale(asked.space[up])
        data += [
            {**trace, **trace_axes(index), **({"showscale": False} if data and trace["type"] == "contour" else {})}
            for trace in _panel(asked, trials, points, (across, up), scales)
        ]
        x, y = layout_axes(index)
        layout |= {x: unit_axis(scales[0], across), y: unit_axis(scales[1], up)}
    if not data:
        return nothing("Fewer than two trials have completed.")
    note = notes("Between cells without trials it is a guess.", left_out(shown, total))
    return Figure(data=data, layout=layout, note=note)


def importance(asked: FigureInput) -> Figure:
    """Each parameter's share in what decides between the best tenth and the rest (PED-ANOVA)."""
    chosen = {name: share for name, share in asked.importance.items() if not asked.params or name in asked.params}
    if not chosen:
        return nothing("Not enough trials: at least two have to complete.")
    total = sum(chosen.values()) or 1.0
    ranked = [(name, share / total) for name, share in chosen.items() if name in asked.shown_params][::-1]
    shares = [share for _, share in ranked]
    bar = horizontal_bars([name for name, _ in ranked], shares, [f"{share:.0%}" for share in shares], "$accent")
    layout = {"xaxis": {"tickformat": ".0%", "rangemode": "tozero"}, "yaxis": {"automargin": True}}
    return Figure(data=[bar], layout={**layout, "height": max(320, 60 + 30 * len(ranked))}, note=asked.hidden_params)


def _panel(
    asked: FigureInput,
    trials: Sequence[Trial],
    points: Sequence[Trial],
    names: tuple[str, str],
    scales: tuple[Scale, Scale],
) -> list[Json]:
    cells: dict[tuple[int, int], list[float]] = defaultdict(list)
    side = max(4, min(_CELLS, int(math.sqrt(len(trials)))))

    def place(trial: Trial) -> tuple[float, float]:
        return scales[0].place(trial.params[names[0]]), scales[1].place(trial.params[names[1]])

    for trial in trials:
        x, y = place(trial)
        value = asked.value(trial)
        if value is not None:
            cells[min(side - 1, int(x * side)), min(side - 1, int(y * side))].append(value)
    # A cell's colour stands at its centre: the outermost ones are repeated at the edges, which would stay blank.
    inside = [0, *range(side), side - 1]
    centres = [0.0, *((index + 0.5) / side for index in range(side)), 1.0]
    texts = [f"{named(trial)}: {number(asked.value(trial))}" for trial in points]
    return [
        {"type": "contour", "x": centres, "y": centres, "connectgaps": True, "colorscale": "$quality"}
        | {"z": [[_median(cells.get((column, row), [])) for column in inside] for row in inside]}
        | {"reversescale": asked.maximize, "hoverinfo": "z", "colorbar": {"title": {"text": "median"}}}
        | {"line": {"width": 0}, "ncontours": 16},
        scatter("trials", list(map(place, points)), marker={"color": "$text", "size": 3, "opacity": 0.55})
        | {"text": texts, "hoverinfo": "text"},
    ]


def _label(column: int, place: float, text: str) -> Json:
    return {
        "x": column,
        "y": place,
        "text": shortened(text, 12),
        "showarrow": False,
        "xanchor": "left",
        "xshift": 3,
        "font": {"size": 10, "color": "$muted"},
        "bgcolor": "$card",
        "borderpad": 1,
    }


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
