"""Figures of values: in their order, on their way, and against the model's size."""

from __future__ import annotations

import math
from typing import Any

from highnoon.shared.domain.states import TrialState
from highnoon.webui.charts.figure import Figure, Json, Question, nothing, scatter
from highnoon.webui.charts.thinning import MOST_POINTS, clip, every, left_out, thinned
from highnoon.webui.charts.values import is_finite, value_title, valued_points

_MOST_CURVES = 80


def history(asked: Question) -> Figure:
    """Every value in its order, and the best so far."""
    valued = valued_points(asked)
    if not valued:
        return nothing("No trial has completed yet.")
    better = max if asked.snapshot.maximize else min
    best: list[tuple[int, float]] = []
    for number, value in valued:
        if not best or better(value, best[-1][1]) != best[-1][1]:
            best.append((number, value))
    shown = thinned(valued, MOST_POINTS, keep=best)
    pruned = thinned(
        [(trial.number, trial.value) for trial in asked.snapshot.trials if is_finite(trial, TrialState.PRUNED)],
        MOST_POINTS // 4,
    )
    staircase = [*best, (asked.snapshot.trials[-1].number, best[-1][1])]
    data = [
        scatter("pruned", pruned, marker={"color": "$pruned", "size": 5, "symbol": "circle-open"}),
        scatter("completed", shown, marker={"color": "$accent", "size": 5, "opacity": 0.65}),
        scatter("best so far", staircase, mode="lines", line={"color": "$best", "width": 2, "shape": "hv"}),
    ]
    layout: Json = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": value_title(asked)}}}
    range_note = clip(layout["yaxis"], [value for _, value in valued], maximize=asked.snapshot.maximize)
    return Figure(
        data=data, layout=layout, note=" ".join(filter(None, [left_out(len(shown), len(valued)), range_note]))
    )


def intermediate(asked: Question) -> Figure:
    """What trials reported on their way: completed, pruned, and running now."""
    reporting = [trial for trial in asked.snapshot.trials if trial.reports]
    if not reporting:
        return nothing(
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
        curves = trials if label == "running" else every(trials, _MOST_CURVES // 2 if label != "failed" else 10)
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
        data.append(scatter(f"best (trial {best.number})", points, mode="lines", line=line))
    layout: Json = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "reported value"}}}
    reported = [report.value for trial in reporting for report in trial.reports]
    clip(layout["yaxis"], reported, maximize=asked.snapshot.maximize)
    return Figure(data=data, layout=layout, note=left_out(count, len(reporting)))


def pareto(asked: Question) -> Figure:
    """Loss against the model's size: what no other trial beats in both."""
    sized = [
        (trial.params_count, trial.loss, trial.number)
        for trial in asked.snapshot.trials
        if trial.params_count is not None and trial.loss is not None and is_finite(trial, TrialState.COMPLETE)
    ]
    if not sized:
        return nothing("No trial has told its model's size: hpo.report_params(n) does.")
    front: list[tuple[int, float, int]] = []
    sign = -1 if asked.snapshot.maximize else 1
    for point in sorted(sized, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * point[1] < sign * front[-1][1]:
            front.append(point)
    shown = every(sized, MOST_POINTS)
    data = [
        scatter("trials", [point[:2] for point in shown], marker={"color": "$accent", "size": 5, "opacity": 0.6})
        | {"text": [f"trial {number}" for _, _, number in shown]},
        scatter(
            "not beaten", [point[:2] for point in front], mode="lines+markers", line={"color": "$best", "shape": "hv"}
        )
        | {"text": [f"trial {number}" for _, _, number in front]},
    ]
    layout = {"xaxis": {"title": {"text": "parameters"}, "type": "log"}, "yaxis": {"title": {"text": "loss"}}}
    return Figure(data=data, layout=layout, note=left_out(len(shown), len(sized)))
