"""Figures of what none beats: loss against size, or the study's own objectives; and how much that came to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from highnoon.shared.domain.front import hypervolume_history, minimized, pareto_front
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.charts.figure import (
    MOST_POINTS,
    Figure,
    FigureInput,
    Json,
    every,
    left_out,
    notes,
    nothing,
    scatter,
)
from highnoon.shared.views.trials import front_by_size, has_size

_BEYOND = 0.1
_MOST_OBJECTIVES = 3
"""Of a volume: beyond that it takes too long."""


def pareto(asked: FigureInput) -> Figure:
    """Two objectives against one another, of a study with one loss and size: what no other trial beats in all."""
    return _objectives(asked) if asked.objectives else _loss_and_size(asked)


def hypervolume(asked: FigureInput) -> Figure:
    """How much of the space of all objectives was beaten after each trial, as a share of what is known."""
    names = asked.objectives
    if not names:
        return nothing("The study has one objective: its history shows the best value so far.", suits=False)
    if len(names) > _MOST_OBJECTIVES:
        why = f"It is computed for up to {_MOST_OBJECTIVES} objectives, and the study has {len(names)}."
        return nothing(why, suits=False)
    feasible = [trial for trial in _finished(asked) if trial.is_feasible]
    if not feasible:
        return nothing("No feasible trial has completed yet.")
    points = [minimized(trial.values, asked.directions) for trial in feasible]
    lows, highs = ([pick(column) for column in zip(*points, strict=True)] for pick in (min, max))
    widths = [high - low or 1.0 for low, high in zip(lows, highs, strict=True)]
    shares = [tuple((one - low) / width for one, low, width in zip(it, lows, widths, strict=True)) for it in points]
    # Beyond the worst one, or a trial that is the worst in one of them would count for nothing.
    reference = (1.0 + _BEYOND,) * len(names)
    history = [volume / math.prod(reference) for volume in hypervolume_history(shares, reference)]
    steps = [
        (trial.number, volume)
        for place, (trial, volume) in enumerate(zip(feasible, history, strict=True))
        if place in (0, len(history) - 1) or volume != history[place - 1]
    ]
    line = {"color": "$best", "width": 2, "shape": "hv"}
    layout: Json = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": "share of the box"}}}
    note = f"The box reaches from the best to a tenth beyond the worst of {', '.join(names)} in feasible trials."
    return Figure(data=[scatter("hypervolume", steps, mode="lines", line=line)], layout=layout, note=note)


def _objectives(asked: FigureInput) -> Figure:
    """The first two, or the two of `params`."""
    names = list(asked.objectives)
    chosen = [name for name in dict.fromkeys([*asked.params, *names]) if name in names][:2]
    across, up = (names.index(name) for name in chosen)
    trials = _finished(asked)
    if not trials:
        return nothing("No trial has completed yet.")
    feasible = [trial for trial in trials if trial.is_feasible]
    front = pareto_front(feasible, lambda trial: minimized(trial.values, asked.directions))
    numbers = {trial.number for trial in front}
    best = list({trial.values: trial for trial in reversed(front)}.values())  # of equals the first is drawn for all
    if len(names) == 2:
        best.sort(key=lambda trial: trial.values[across])
    others = [trial for trial in feasible if trial.number not in numbers]
    outside = [trial for trial in trials if not trial.is_feasible]
    shown, hidden = every(others, MOST_POINTS), every(outside, MOST_POINTS // 4)

    def drawn(name: str, some: Sequence[Trial], **style: Any) -> Json:
        points = [(trial.values[across], trial.values[up]) for trial in some]
        return scatter(name, points, text=[f"trial {trial.number}" for trial in some], **style)

    data = [
        drawn("infeasible", hidden, marker={"color": "$muted", "size": 5, "symbol": "x-thin-open"}),
        drawn("trials", shown, marker={"color": "$accent", "size": 5, "opacity": 0.6}),
        drawn(
            "not beaten",
            best,
            mode="lines+markers" if len(names) == 2 else "markers",
            line={"color": "$best", "shape": "hv" if asked.directions[up] == "minimize" else "vh"},
            marker={"color": "$best", "size": 7},
        ),
    ]
    axes = {f"{axis}axis": {"title": {"text": _title(asked, place)}} for axis, place in (("x", across), ("y", up))}
    note = "" if len(names) == 2 else f"{len(front)} that none beats in all of {', '.join(names)}."
    dropped = left_out(len(shown) + len(hidden) + len(front), len(trials))
    return Figure(data=[trace for trace in data if trace["x"]], layout=axes, note=notes(note, dropped))


def _loss_and_size(asked: FigureInput) -> Figure:
    sized = list(filter(has_size, asked.completed()))
    if not sized:
        why = "No trial has reported its model's size: hn.report_params(n) does."
        return nothing(why, suits=not asked.completed())
    shown = every(sized, MOST_POINTS)
    distinct = {(one.loss, one.params_count): one for one in reversed(sized)}  # of equals the first is drawn for all
    best = front_by_size(distinct.values(), maximize=asked.maximize)
    data = [
        _sized("trials", shown, marker={"color": "$accent", "size": 5, "opacity": 0.6}),
        _sized("not beaten", best, mode="lines+markers", line={"color": "$best", "shape": "hv"}),
    ]
    layout = {"xaxis": {"title": {"text": "parameters"}, "type": "log"}, "yaxis": {"title": {"text": "loss"}}}
    return Figure(data=data, layout=layout, note=left_out(len(shown), len(sized)))


def _finished(asked: FigureInput) -> list[Trial]:
    complete = [trial for trial in asked.trials if trial.state is TrialState.COMPLETE and trial.values]
    return [trial for trial in complete if all(map(math.isfinite, trial.values))]


def _title(asked: FigureInput, place: int) -> str:
    return f"{asked.objectives[place]} ({'more' if asked.directions[place] == 'maximize' else 'less'} is better)"


def _sized(name: str, trials: Sequence[Trial], **style: Any) -> Json:
    points = [(trial.params_count, trial.loss) for trial in trials]
    return scatter(name, points, text=[f"trial {trial.number}" for trial in trials], **style)
