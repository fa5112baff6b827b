"""Figures of one study: Optuna's own, and the front of loss and size, which Optuna draws for two directions only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from highnoon.shared.domain.pareto import Candidate, pareto_front
from highnoon.shared.domain.states import TrialState
from highnoon.shared.store.optuna_trials import trial_of

Drawing = Any
"""A plotly figure; plotly has no types."""


def draw(study: optuna.Study, kind: str, params: Sequence[str] | None) -> Drawing:
    """The figure of that name in KINDS; of these parameters where it shows parameters. Raises KeyError."""
    figure = KINDS[kind](study, list(params) if params else None)
    figure.update_layout(title=f"{study.study_name}: {_TITLES[kind]}")
    return figure


def _history(study: optuna.Study, params: list[str] | None) -> Drawing:
    return optuna.visualization.plot_optimization_history(study)


def _slice(study: optuna.Study, params: list[str] | None) -> Drawing:
    return optuna.visualization.plot_slice(study, params=params)


def _parallel(study: optuna.Study, params: list[str] | None) -> Drawing:
    return optuna.visualization.plot_parallel_coordinate(study, params=params)


def _contour(study: optuna.Study, params: list[str] | None) -> Drawing:
    return optuna.visualization.plot_contour(study, params=params)


def _importances(study: optuna.Study, params: list[str] | None) -> Drawing:
    return optuna.visualization.plot_param_importances(study, params=params)


def _intermediate(study: optuna.Study, params: list[str] | None) -> Drawing:
    return optuna.visualization.plot_intermediate_values(study)


def _timeline(study: optuna.Study, params: list[str] | None) -> Drawing:
    return optuna.visualization.plot_timeline(study)


def _pareto(study: optuna.Study, params: list[str] | None) -> Drawing:
    import plotly.graph_objects as plotly

    trials = [trial_of(frozen) for frozen in study.get_trials(deepcopy=False)]
    known = [
        Candidate(number=trial.number, loss=trial.loss, params=trial.params_count)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.loss is not None and trial.params_count is not None
    ]
    maximize = study.direction is optuna.study.StudyDirection.MAXIMIZE
    front = pareto_front(known, maximize=maximize)

    def points(candidates: Sequence[Candidate], **style: Any) -> Drawing:
        return plotly.Scatter(
            x=[one.params for one in candidates],
            y=[one.loss for one in candidates],
            text=[f"trial {one.number}" for one in candidates],
            **style,
        )

    figure = plotly.Figure(
        [points(known, mode="markers", name="trials"), points(front, mode="lines+markers", name="front")]
    )
    figure.update_layout(xaxis={"title": "parameters", "type": "log"}, yaxis={"title": "loss"})
    return figure


KINDS: Mapping[str, Callable[[optuna.Study, list[str] | None], Drawing]] = {
    "history": _history,
    "slice": _slice,
    "parallel": _parallel,
    "contour": _contour,
    "importances": _importances,
    "intermediate": _intermediate,
    "timeline": _timeline,
    "pareto": _pareto,
}
_TITLES = {
    "history": "optimisation history",
    "slice": "each parameter alone",
    "parallel": "all parameters together",
    "contour": "two parameters at a time",
    "importances": "importance of parameters",
    "intermediate": "reports of each trial",
    "timeline": "what ran when",
    "pareto": "loss and size",
}
