"""Figures as plotly's JSON, built from plain trials. Pure: no I/O, no plotly, no Optuna.

Written here and not taken from `optuna.visualization` for three reasons: at 10,000 trials its figures are megabytes
(here whatever a screen cannot show is left out, and the note says so), parallel coordinates there need WebGL and
`unsafe-eval`, and colours must follow the page. A colour is a name with a `$`, which the page replaces by its own.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from highnoon.webui.library import LOSS, PARAMS, Snapshot, cause_of, ending_of
from shared.ledger.overview import AttemptSpan
from shared.space import Categorical, Int, LogUniform, Param
from shared.states import Ending, TrialState
from shared.trial import ParamValue, Trial

Json = dict[str, Any]

_MOST_POINTS = 2000
_MOST_POINTS_OF_A_PANEL = 500
_MOST_LINES = 250
_MOST_CURVES = 80
_CELLS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What the page draws, and what it says below: what is left out, or why there is nothing to see."""

    data: Sequence[Json] = ()
    layout: Json = field(default_factory=dict)
    note: str = ""

    def to_json(self) -> Json:
        """For plotly."""
        return {"data": list(self.data), "layout": self.layout, "note": self.note}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a figure is made from. Spans and causes are the ledger's; a study of somebody else has none."""

    snapshot: Snapshot
    x: str = ""
    y: str = ""
    raw: bool = False
    """Show the objective's own loss in the place of the score, where trials have both."""
    spans: Sequence[AttemptSpan] = ()
    causes: Sequence[tuple[Ending, str | None, int]] = ()
    importance: Mapping[str, float] = field(default_factory=dict)


def history(asked: Question) -> Figure:
    """Every value in its order, and the best so far."""
    valued = _valued(asked)
    if not valued:
        return _nothing("No trial has completed yet.")
    better = max if asked.snapshot.maximize else min
    best: list[tuple[int, float]] = []
    for number, value in valued:
        if not best or better(value, best[-1][1]) != best[-1][1]:
            best.append((number, value))
    shown = _thinned(valued, _MOST_POINTS, keep=best)
    pruned = _thinned(
        [(trial.number, trial.value) for trial in asked.snapshot.trials if _is_finite(trial, TrialState.PRUNED)],
        _MOST_POINTS // 4,
    )
    staircase = [*best, (asked.snapshot.trials[-1].number, best[-1][1])]
    data = [
        _scatter("pruned", pruned, marker={"color": "$pruned", "size": 5, "symbol": "circle-open"}),
        _scatter("completed", shown, marker={"color": "$accent", "size": 5, "opacity": 0.65}),
        _scatter("best so far", staircase, mode="lines", line={"color": "$best", "width": 2, "shape": "hv"}),
    ]
    layout = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": _value_title(asked)}}}
    range_note = _clip(layout["yaxis"], [value for _, value in valued], maximize=asked.snapshot.maximize)
    return Figure(
        data=data, layout=layout, note=" ".join(filter(None, [_left_out(len(shown), len(valued)), range_note]))
    )


def slices(asked: Question) -> Figure:
    """The value over each parameter alone."""
    names = list(asked.snapshot.space)
    trials = _complete(asked)
    if not trials or not names:
        return _nothing("No trial has completed yet.")
    shown = _thinned_trials(trials, _MOST_POINTS_OF_A_PANEL)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    data, layout = [], {"grid": {"rows": rows, "columns": columns, "pattern": "independent"}, "height": 60 + 190 * rows}
    values = [value for _, value in _valued(asked)]
    for index, name in enumerate(names):
        suffix = "" if index == 0 else str(index + 1)
        chosen = [trial for trial in shown if name in trial.params]
        x = _coordinates(asked.snapshot.space[name], [trial.params[name] for trial in chosen])
        marker = {"color": [trial.number for trial in chosen], "colorscale": "$sequence", "size": 5, "opacity": 0.75}
        trace = _scatter(name, list(zip(x, (_value(trial, asked) for trial in chosen), strict=True)), marker=marker)
        data.append(
            {**trace, "text": [f"trial {trial.number}" for trial in chosen], "showlegend": False}
            | {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
        )
        layout[f"xaxis{suffix}"] = {**_axis(asked.snapshot.space[name]), "title": {"text": name}}
        layout[f"yaxis{suffix}"] = {}
        _clip(layout[f"yaxis{suffix}"], values, maximize=asked.snapshot.maximize)
    note = f"Darker is earlier. {_left_out(len(shown), len(trials))}"
    return Figure(data=data, layout=layout, note=note.strip())


def parallel(asked: Question) -> Figure:
    """One line per trial across all parameters, the better ones on top."""
    names = list(asked.snapshot.space)
    ranked = _ranked(asked)
    if not ranked or not names:
        return _nothing("No trial has completed yet.")
    top = ranked[: _MOST_LINES // 2]
    shown = [*top, *_every(ranked[len(top) :], _MOST_LINES - len(top))]
    spread = {name: _Scale(asked.snapshot.space[name]) for name in names}
    bands = [("best tenth", "$best", 1.6, 0.9), ("upper half", "$accent", 1.0, 0.45), ("others", "$muted", 0.8, 0.3)]
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
    marks = [_mark(index, tick, text) for index, name in enumerate(names) for tick, text in spread[name].ticks()]
    layout = {
        "xaxis": {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": True, "zeroline": False},
        "yaxis": {"visible": False, "range": [-0.06, 1.06]},
        "annotations": marks,
        "hovermode": False,
    }
    return Figure(data=data, layout=layout, note=_left_out(len(shown), len(ranked)))


def contour(asked: Question) -> Figure:
    """The median value in each cell of two parameters' plane, and where trials were."""
    space = asked.snapshot.space
    trials = [trial for trial in _complete(asked) if asked.x in trial.params and asked.y in trial.params]
    if asked.x not in space or asked.y not in space or asked.x == asked.y:
        return _nothing("Choose two different parameters.")
    if len(trials) < 2:
        return _nothing("Fewer than two trials have completed.")
    across, up = _Scale(space[asked.x]), _Scale(space[asked.y])
    cells: dict[tuple[int, int], list[float]] = defaultdict(list)
    side = max(4, min(_CELLS, int(math.sqrt(len(trials)))))
    for trial in trials:
        value = _value(trial, asked)
        place = _cell(across.place(trial.params[asked.x]), side), _cell(up.place(trial.params[asked.y]), side)
        if value is not None:
            cells[place].append(value)
    z = [[_median(cells.get((column, row), [])) for column in range(side)] for row in range(side)]
    centres = [(index + 0.5) / side for index in range(side)]
    shown = _thinned_trials(trials, _MOST_POINTS_OF_A_PANEL)
    points = [(across.place(trial.params[asked.x]), up.place(trial.params[asked.y])) for trial in shown]
    data = [
        {"type": "contour", "x": centres, "y": centres, "z": z, "connectgaps": True, "colorscale": "$quality"}
        | {"reversescale": asked.snapshot.maximize, "hoverinfo": "z", "colorbar": {"title": {"text": "median"}}}
        | {"line": {"width": 0}, "ncontours": 16},
        _scatter("trials", points, marker={"color": "$text", "size": 3, "opacity": 0.55})
        | {"text": [f"trial {trial.number}: {_spelled(_value(trial, asked))}" for trial in shown], "hoverinfo": "text"},
    ]
    layout = {
        "xaxis": _ticked(across, asked.x),
        "yaxis": _ticked(up, asked.y),
        "showlegend": False,
    }
    return Figure(
        data=data,
        layout=layout,
        note=f"Between cells without trials it is a guess. {_left_out(len(shown), len(trials))}",
    )


def importance(asked: Question) -> Figure:
    """Each parameter's share in what decides between the best tenth and the rest (PED-ANOVA)."""
    if not asked.importance:
        return _nothing("Not enough trials: at least two have to complete.")
    ranked = list(reversed(asked.importance.items()))
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": [name for name, _ in ranked],
        "x": [share for _, share in ranked],
        "text": [f"{share:.0%}" for _, share in ranked],
        "textposition": "auto",
        "marker": {"color": "$accent"},
        "hoverinfo": "skip",
    }
    layout = {"xaxis": {"tickformat": ".0%", "rangemode": "tozero"}, "yaxis": {"automargin": True}}
    return Figure(data=[bar], layout={**layout, "height": max(220, 60 + 30 * len(ranked))})


def intermediate(asked: Question) -> Figure:
    """What trials reported on their way: completed, pruned, and running now."""
    reporting = [trial for trial in asked.snapshot.trials if trial.reports]
    if not reporting:
        return _nothing(
            "No trial has reported an intermediate value: hpo.report(value, step) does, and lets a pruner work."
        )
    kinds = [
        ("pruned", "$pruned", [trial for trial in reporting if trial.state is TrialState.PRUNED]),
        ("failed", "$failed", [trial for trial in reporting if trial.state is TrialState.FAIL]),
        ("completed", "$accent", [trial for trial in reporting if trial.state is TrialState.COMPLETE]),
        ("running", "$running", [trial for trial in reporting if trial.state is TrialState.RUNNING]),
    ]
    data, count = [], 0
    for label, color, trials in kinds:
        curves = trials if label == "running" else _every(trials, _MOST_CURVES // 2 if label != "failed" else 10)
        xs: list[Any] = []
        ys: list[Any] = []
        texts: list[Any] = []
        for trial in curves:
            xs += [*(report.step for report in trial.reports), None]
            ys += [*(report.value if math.isfinite(report.value) else None for report in trial.reports), None]
            texts += [*[f"trial {trial.number}"] * len(trial.reports), None]
        count += len(curves)
        if curves:
            line = {"color": color, "width": 2 if label == "running" else 1}
            data.append(
                {"type": "scatter", "mode": "lines", "name": label, "x": xs, "y": ys, "text": texts, "line": line}
                | {"opacity": 0.9 if label == "running" else 0.55}
            )
    best = asked.snapshot.best
    if best is not None and best.reports:
        points = [(report.step, report.value) for report in best.reports]
        line = {"color": "$best", "width": 3}
        data.append(_scatter(f"best (trial {best.number})", points, mode="lines", line=line))
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "reported value"}}}
    reported = [report.value for trial in reporting for report in trial.reports]
    _clip(layout["yaxis"], reported, maximize=asked.snapshot.maximize)
    return Figure(data=data, layout=layout, note=_left_out(count, len(reporting)))


def timeline(asked: Question) -> Figure:
    """Which slot ran which trial when, by how it ended: gaps are time that nobody used."""
    if not asked.spans:
        return _nothing("No attempt was made yet." if asked.causes else "Only trials that workers run have a timeline.")
    now = max(span.ended_at or span.started_at for span in asked.spans)
    lanes = sorted({(span.host, span.pid) for span in asked.spans})
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
                "name": ending,
                "y": [_lane(span.host, span.pid, lanes) for span in spans],
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
        "height": max(220, 90 + 26 * len(lanes)),
    }
    total = sum(count for _, _, count in asked.causes) + len(by_ending.get("running", ()))
    return Figure(
        data=data, layout=layout, note=_left_out(len(asked.spans), max(total, len(asked.spans)), what="newest attempts")
    )


def outcomes(asked: Question) -> Figure:
    """How attempts ended and why, repeated ones included."""
    causes = list(asked.causes) or _causes_in(asked.snapshot.trials)
    if not causes:
        return _nothing("No trial has ended yet.")
    ranked = sorted(causes, key=lambda row: row[2])
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": [f"{ending}: {cause}" if cause else str(ending) for ending, cause, _ in ranked],
        "x": [count for _, _, count in ranked],
        "text": [f"{count:,}" for _, _, count in ranked],
        "textposition": "auto",
        "hoverinfo": "skip",
        "marker": {"color": [_COLORS.get(str(ending), "$muted") for ending, _, _ in ranked]},
    }
    layout = {
        "yaxis": {"automargin": True},
        "xaxis": {"rangemode": "tozero"},
        "height": max(200, 60 + 30 * len(ranked)),
    }
    return Figure(data=[bar], layout=layout)


def memory(asked: Question) -> Figure:
    """The largest memory of each attempt; those that were stopped for it stand out."""
    measured = [span for span in asked.spans if span.peak_rss_bytes and span.trial_number is not None]
    if not measured:
        return _nothing("No attempt has told its memory yet.")
    data = []
    for label, color, wanted in (("in bounds", "$accent", False), ("stopped", "$stopped", True)):
        spans = [span for span in measured if (span.ending is Ending.STOPPED) is wanted]
        points = [(span.trial_number or 0, (span.peak_rss_bytes or 0) / 1e9) for span in spans]
        if points:
            data.append(_scatter(label, points, marker={"color": color, "size": 9 if wanted else 5, "opacity": 0.75}))
    layout = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": "peak, GB"}, "rangemode": "tozero"}}
    return Figure(data=data, layout=layout)


def pareto(asked: Question) -> Figure:
    """Loss against the model's size: what no other trial beats in both."""
    sized = [
        (int(trial.attrs[PARAMS]), float(trial.attrs.get(LOSS, trial.value)), trial.number)
        for trial in asked.snapshot.trials
        if _is_finite(trial, TrialState.COMPLETE) and isinstance(trial.attrs.get(PARAMS), int)
    ]
    if not sized:
        return _nothing("No trial has told its model's size: hpo.report_params(n) does.")
    front: list[tuple[int, float, int]] = []
    sign = -1 if asked.snapshot.maximize else 1
    for point in sorted(sized, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * point[1] < sign * front[-1][1]:
            front.append(point)
    shown = _every(sized, _MOST_POINTS)
    data = [
        _scatter("trials", [point[:2] for point in shown], marker={"color": "$accent", "size": 5, "opacity": 0.6})
        | {"text": [f"trial {number}" for _, _, number in shown]},
        _scatter(
            "not beaten", [point[:2] for point in front], mode="lines+markers", line={"color": "$best", "shape": "hv"}
        )
        | {"text": [f"trial {number}" for _, _, number in front]},
    ]
    layout = {"xaxis": {"title": {"text": "parameters"}, "type": "log"}, "yaxis": {"title": {"text": "loss"}}}
    return Figure(data=data, layout=layout, note=_left_out(len(shown), len(sized)))


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


class _Scale:
    """A parameter's values laid out between 0 and 1."""

    def __init__(self, param: Param) -> None:
        self._param = param

    def place(self, value: ParamValue) -> float:
        match self._param:
            case Categorical(choices=choices):
                return (choices.index(value) + 0.5) / len(choices) if value in choices else 0.0
            case LogUniform(low=low, high=high) | Int(low=low, high=high, log=True):
                return _share(math.log(max(float(value or low), 1e-300)), math.log(low), math.log(high))
            case _:
                return _share(float(value or 0), self._param.low, self._param.high)

    def ticks(self) -> list[tuple[float, str]]:
        """A few places and what stands there."""
        match self._param:
            case Categorical(choices=choices):
                return [((index + 0.5) / len(choices), _word(choice)) for index, choice in enumerate(choices)]
            case LogUniform(low=low, high=high) | Int(low=low, high=high, log=True):
                return [(0.0, f"{low:.3g}"), (0.5, f"{math.sqrt(low) * math.sqrt(high):.2g}"), (1.0, f"{high:.3g}")]
            case _:
                low, high = self._param.low, self._param.high
                return [(0.0, f"{low:.4g}"), (0.5, f"{(low + high) / 2:.4g}"), (1.0, f"{high:.4g}")]


def _complete(asked: Question) -> list[Trial]:
    return [trial for trial in asked.snapshot.trials if _is_finite(trial, TrialState.COMPLETE)]


def _is_finite(trial: Trial, state: TrialState) -> bool:
    return trial.state is state and trial.value is not None and math.isfinite(trial.value)


def _value(trial: Trial, asked: Question) -> float | None:
    if asked.raw and LOSS in trial.attrs:
        return float(trial.attrs[LOSS])
    return trial.value


def _valued(asked: Question) -> list[tuple[int, float]]:
    return [
        (trial.number, value)
        for trial in _complete(asked)
        if (value := _value(trial, asked)) is not None and math.isfinite(value)
    ]


def _value_title(asked: Question) -> str:
    if not any(LOSS in trial.attrs for trial in asked.snapshot.trials):
        return "value"
    return "loss" if asked.raw else "score"


def _ranked(asked: Question) -> list[Trial]:
    return sorted(_complete(asked), key=lambda trial: trial.value or 0.0, reverse=asked.snapshot.maximize)


def _scatter(name: str, points: Sequence[tuple[Any, Any]], *, mode: str = "markers", **style: Any) -> Json:
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        **style,
    }


def _nothing(why: str) -> Figure:
    return Figure(note=why)


def _every(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[int(index * len(items) / most)] for index in range(most)] if most > 0 else []


def _thinned(
    points: Sequence[tuple[int, Any]], most: int, keep: Iterable[tuple[int, Any]] = ()
) -> list[tuple[int, Any]]:
    """Evenly spaced, with all that must be seen."""
    return sorted({*_every(points, most), *keep}) if len(points) > most else list(points)


def _thinned_trials(trials: Sequence[Trial], most: int) -> list[Trial]:
    """The best fifth of the room for the best trials, the rest evenly spaced over time."""
    if len(trials) <= most:
        return list(trials)
    best = sorted(trials, key=lambda trial: trial.value or 0.0)[: most // 10]
    worst_or_best = sorted(trials, key=lambda trial: trial.value or 0.0)[-most // 10 :]
    chosen = {trial.number: trial for trial in [*best, *worst_or_best, *_every(trials, most - most // 5)]}
    return [chosen[number] for number in sorted(chosen)]


def _left_out(shown: int, total: int, what: str = "of") -> str:
    if shown >= total:
        return ""
    return f"{shown:,} of {total:,} shown." if what == "of" else f"The {shown:,} {what} of {total:,}."


def _clip(axis: Json, values: Sequence[float], *, maximize: bool) -> str:
    """A few diverged values must not flatten all others; plotly's double click shows them."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) < 20:
        return ""
    low, high = ordered[0], ordered[-1]
    middle = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    room = (middle[1] - middle[0]) or abs(middle[0]) or 1.0
    bottom, top = (
        max(low, middle[0] - 1.5 * room) if maximize else low,
        high if maximize else min(high, middle[1] + 1.5 * room),
    )
    if (bottom, top) == (low, high):
        return ""
    axis["range"] = [bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom)]
    beyond = sum(not bottom <= value <= top for value in ordered)
    return f"{beyond:,} far outliers are outside of the picture; a double click shows them." if beyond else ""


def _axis(param: Param) -> Json:
    if isinstance(param, LogUniform) or (isinstance(param, Int) and param.log):
        return {"type": "log"}
    return {"type": "category"} if isinstance(param, Categorical) else {}


def _coordinates(param: Param, values: Sequence[ParamValue]) -> list[Any]:
    return [_word(value) for value in values] if isinstance(param, Categorical) else list(values)


def _ticked(scale: _Scale, name: str) -> Json:
    places = scale.ticks()
    return {
        "title": {"text": name},
        "range": [0, 1],
        "tickvals": [place for place, _ in places],
        "ticktext": [text for _, text in places],
        "zeroline": False,
    }


def _mark(column: int, place: float, text: str) -> Json:
    shown = text if len(text) <= 12 else f"{text[:11]}…"
    return {"x": column, "y": place, "text": shown, "showarrow": False, "xanchor": "left", "xshift": 3} | {
        "font": {"size": 10, "color": "$muted"}
    }


def _word(value: ParamValue) -> str:
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)


def _spelled(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))


def _cell(place: float, side: int) -> int:
    return min(side - 1, int(place * side))


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _lane(host: str, pid: int, lanes: Sequence[tuple[str, int]]) -> str:
    """Slots of a host are told apart by their number, as supervisors' pids mean nothing to people."""
    of_host = [lane for lane in lanes if lane[0] == host]
    return f"{host} · {of_host.index((host, pid))}"


def _span_text(span: AttemptSpan, seconds: float) -> str:
    number = "–" if span.trial_number is None else span.trial_number
    why = f", {span.cause}" if span.cause else ""
    return f"trial {number}, attempt {span.attempt}: {span.ending or 'running'}{why}, {seconds:.1f} s"


def _place_of_ending(ending: str) -> int:
    order = list(_COLORS)
    return order.index(ending) if ending in order else len(order)


def _causes_in(trials: Iterable[Trial]) -> list[tuple[str, str | None, int]]:
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    counted = Counter((ending_of(trial), cause_of(trial) or None) for trial in trials if trial.state in ended)
    return [(ending, cause, count) for (ending, cause), count in counted.items()]
