"""Figures of values: in their order, and over the steps of a trial."""

from __future__ import annotations

import math

from highnoon.shared.domain.states import TrialState
from highnoon.shared.views.charts.figure import (
    MOST_POINTS,
    Figure,
    FigureInput,
    Json,
    clip,
    curves,
    every,
    is_finite,
    left_out,
    notes,
    nothing,
    scatter,
)
from highnoon.shared.views.trials import best_of

_MOST_CURVES = 40
_MOST_FAILED_CURVES = 10


def history(asked: FigureInput) -> Figure:
    """Every value in its order, and the best so far."""
    valued = asked.points()
    if not valued:
        return nothing("No trial has completed yet." if not asked.completed() else "No trial is feasible yet.")
    better = max if asked.maximize else min
    best: list[tuple[int, float]] = []
    for number, value in valued:
        if not best or better(value, best[-1][1]) != best[-1][1]:
            best.append((number, value))
    shown = sorted({*every(valued, MOST_POINTS), *best})
    pruned = [(trial.number, asked.value(trial)) for trial in asked.trials if is_finite(trial, TrialState.PRUNED)]
    infeasible = [(trial.number, asked.value(trial)) for trial in asked.completed() if not trial.is_feasible]
    staircase = [*best, (asked.trials[-1].number, best[-1][1])]
    data = [
        scatter(
            "pruned",
            every(pruned, MOST_POINTS // 4),
            marker={"color": "$pruned", "size": 5, "symbol": "circle-open"},
        ),
        scatter(
            "infeasible",
            every(infeasible, MOST_POINTS // 4),
            marker={"color": "$muted", "size": 5, "symbol": "x-thin-open"},
        ),
        scatter("completed", shown, marker={"color": "$accent", "size": 5, "opacity": 0.65}),
        scatter("best so far", staircase, mode="lines", line={"color": "$best", "width": 2, "shape": "hv"}),
    ]
    data = [trace for trace in data if trace["x"] or trace["name"] != "infeasible"]
    layout: Json = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": asked.value_title}}}
    outliers = clip(layout["yaxis"], [value for _, value in valued], maximize=asked.maximize)
    return Figure(data=data, layout=layout, note=notes(left_out(len(shown), len(valued)), outliers))


def intermediate(asked: FigureInput) -> Figure:
    """What trials reported: completed, pruned, failed, and running now."""
    reporting = [trial for trial in asked.trials if trial.reports]
    if not reporting:
        return nothing(
            "No trial has reported an intermediate value: hpo.report(value, step) does, and lets a pruner work."
        )
    kinds = [
        ("pruned", "$pruned", TrialState.PRUNED, _MOST_CURVES),
        ("failed", "$failed", TrialState.FAIL, _MOST_FAILED_CURVES),
        ("completed", "$accent", TrialState.COMPLETE, _MOST_CURVES),
        ("running", "$running", TrialState.RUNNING, len(reporting)),
    ]
    data, count = [], 0
    for label, color, state, most in kinds:
        trials = every([trial for trial in reporting if trial.state is state], most)
        count += len(trials)
        if trials:
            lines = [
                [(one.step, one.value if math.isfinite(one.value) else None) for one in it.reports] for it in trials
            ]
            texts = [text for it in trials for text in (*[f"trial {it.number}"] * len(it.reports), None)]
            line = {"color": color, "width": 2 if label == "running" else 1}
            data.append(curves(label, lines, text=texts, line=line, opacity=0.9 if label == "running" else 0.55))
    best = best_of(asked.trials, maximize=asked.maximize)
    if best is not None and best.reports:
        points = [(report.step, report.value) for report in best.reports]
        line = {"color": "$best", "width": 3}
        data.append(curves(f"best (trial {best.number})", [points], line=line))
    layout: Json = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "reported value"}}}
    reported = [report.value for trial in reporting for report in trial.reports]
    clip(layout["yaxis"], reported, maximize=asked.maximize)
    return Figure(data=data, layout=layout, note=left_out(count, len(reporting)))
