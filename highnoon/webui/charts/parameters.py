"""Figures of parameters: alone, all together, two at a time, and how much each matters."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from highnoon.webui.charts.figure import Figure, Json, Question, bar_width, nothing, scatter
from highnoon.webui.charts.scales import Scale, axis_of, coordinates, mark, shortened, ticked
from highnoon.webui.charts.thinning import clip, every, left_out, thinned_trials
from highnoon.webui.charts.values import completed_trials, ranked_trials, spelled, value_of, valued_points

_MOST_POINTS_OF_A_PANEL = 500


_MOST_LINES = 250


_CELLS = 20


def slices(asked: Question) -> Figure:
    """The value over each parameter alone."""
    names = list(asked.snapshot.space)
    trials = completed_trials(asked)
    if not trials or not names:
        return nothing("No trial has completed yet.")
    shown = thinned_trials(trials, _MOST_POINTS_OF_A_PANEL)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    data: list[Json] = []
    layout: Json = {"grid": {"rows": rows, "columns": columns, "pattern": "independent"}, "height": 60 + 190 * rows}
    values = [value for _, value in valued_points(asked)]
    for index, name in enumerate(names):
        suffix = "" if index == 0 else str(index + 1)
        chosen = [trial for trial in shown if name in trial.params]
        x = coordinates(asked.snapshot.space[name], [trial.params[name] for trial in chosen])
        marker = {"color": [trial.number for trial in chosen], "colorscale": "$sequence", "size": 5, "opacity": 0.75}
        trace = scatter(name, list(zip(x, (value_of(trial, asked) for trial in chosen), strict=True)), marker=marker)
        data.append(
            {**trace, "text": [f"trial {trial.number}" for trial in chosen], "showlegend": False}
            | {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
        )
        layout[f"xaxis{suffix}"] = {**axis_of(asked.snapshot.space[name]), "title": {"text": shortened(name, 36)}}
        layout[f"yaxis{suffix}"] = {}
        clip(layout[f"yaxis{suffix}"], values, maximize=asked.snapshot.maximize)
    note = f"The stronger the colour, the later the trial. {left_out(len(shown), len(trials))}"
    return Figure(data=data, layout=layout, note=note.strip())


def parallel(asked: Question) -> Figure:
    """One line per trial across all parameters, the better ones on top."""
    names = list(asked.snapshot.space)
    ranked = ranked_trials(asked)
    if not ranked or not names:
        return nothing("No trial has completed yet.")
    top = ranked[: _MOST_LINES // 4]
    shown = [*top, *every(ranked[len(top) :], _MOST_LINES - len(top))]
    spread = {name: Scale(asked.snapshot.space[name]) for name in names}
    bands = [("best tenth", "$best", 1.4, 0.5), ("upper half", "$accent", 1.0, 0.45), ("others", "$muted", 0.8, 0.3)]
    cuts = (max(1, len(ranked) // 10), max(1, len(ranked) // 2), len(ranked))
    rank = {trial.number: place for place, trial in enumerate(ranked)}
    data = []
    for (label, color, width, opacity), low, high in reversed(list(zip(bands, (0, *cuts), cuts, strict=False))):
        xs: list[Any] = []
        ys: list[Any] = []
        for trial in shown:
            if low <= rank[trial.number] < high and all(name in trial.params for name in names):
                xs += [*range(len(names)), None]
                ys += [*(spread[name].place(trial.params[name]) for name in names), None]
        line = {"color": color, "width": width}
        data.append(
            {"type": "scatter", "mode": "lines", "name": label, "x": xs, "y": ys, "line": line}
            | {"opacity": opacity, "hoverinfo": "skip"}
        )
    titles = [shortened(name, 24) for name in names]
    marks = [mark(index, tick, text) for index, name in enumerate(names) for tick, text in spread[name].ticks()]
    layout = {
        "xaxis": {"tickvals": list(range(len(names))), "ticktext": titles, "showgrid": True, "zeroline": False},
        # Half a title stands beside the outermost axes; plotly leaves out what has no room.
        "margin": {"l": max(50, 4 * len(titles[0])), "r": max(14, 4 * len(titles[-1]))},
        "yaxis": {"visible": False, "range": [-0.06, 1.06]},
        "annotations": marks,
        "hovermode": False,
    }
    return Figure(data=data, layout=layout, note=left_out(len(shown), len(ranked)))


def contour(asked: Question) -> Figure:
    """The median value in each cell of two parameters' plane, and where trials were."""
    space = asked.snapshot.space
    trials = [trial for trial in completed_trials(asked) if asked.x in trial.params and asked.y in trial.params]
    if asked.x not in space or asked.y not in space or asked.x == asked.y:
        return nothing("Choose two different parameters.")
    if len(trials) < 2:
        return nothing("Fewer than two trials have completed.")
    across, up = Scale(space[asked.x]), Scale(space[asked.y])
    cells: dict[tuple[int, int], list[float]] = defaultdict(list)
    side = max(4, min(_CELLS, int(math.sqrt(len(trials)))))
    for trial in trials:
        value = value_of(trial, asked)
        place = _cell(across.place(trial.params[asked.x]), side), _cell(up.place(trial.params[asked.y]), side)
        if value is not None:
            cells[place].append(value)
    # A cell's colour stands at its centre: the outermost ones are repeated at the edges, which would stay blank.
    inside = [0, *range(side), side - 1]
    z = [[_median(cells.get((column, row), [])) for column in inside] for row in inside]
    places = [0.0, *((index + 0.5) / side for index in range(side)), 1.0]
    shown = thinned_trials(trials, _MOST_POINTS_OF_A_PANEL)
    points = [(across.place(trial.params[asked.x]), up.place(trial.params[asked.y])) for trial in shown]
    texts = [f"trial {trial.number}: {spelled(value_of(trial, asked))}" for trial in shown]
    data: list[Json] = [
        {"type": "contour", "x": places, "y": places, "z": z, "connectgaps": True, "colorscale": "$quality"}
        | {"reversescale": asked.snapshot.maximize, "hoverinfo": "z", "colorbar": {"title": {"text": "median"}}}
        | {"line": {"width": 0}, "ncontours": 16},
        scatter("trials", points, marker={"color": "$text", "size": 3, "opacity": 0.55})
        | {"text": texts, "hoverinfo": "text"},
    ]
    layout = {
        "xaxis": ticked(across, asked.x),
        "yaxis": ticked(up, asked.y),
        "showlegend": False,
    }
    return Figure(
        data=data,
        layout=layout,
        note=f"Between cells without trials it is a guess. {left_out(len(shown), len(trials))}",
    )


def importance(asked: Question) -> Figure:
    """Each parameter's share in what decides between the best tenth and the rest (PED-ANOVA)."""
    if not asked.importance:
        return nothing("Not enough trials: at least two have to complete.")
    ranked = list(asked.importance.items())[::-1]
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": [name for name, _ in ranked],
        "x": [share for _, share in ranked],
        "text": [f"{share:.0%}" for _, share in ranked],
        "textposition": "auto",
        "width": bar_width(len(ranked)),
        "marker": {"color": "$accent"},
        "hoverinfo": "skip",
    }
    layout = {"xaxis": {"tickformat": ".0%", "rangemode": "tozero"}, "yaxis": {"automargin": True}}
    return Figure(data=[bar], layout={**layout, "height": max(320, 60 + 30 * len(ranked))})


def _cell(place: float, side: int) -> int:
    return min(side - 1, int(place * side))


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
