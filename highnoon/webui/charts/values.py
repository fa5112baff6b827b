"""The values of trials as figures show them: finite ones, the score or the objective's own loss. Pure."""

from __future__ import annotations

import math

from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.webui.charts.figure import Question


def completed_trials(asked: Question) -> list[Trial]:
    return [trial for trial in asked.snapshot.trials if is_finite(trial, TrialState.COMPLETE)]


def is_finite(trial: Trial, state: TrialState) -> bool:
    return trial.state is state and trial.value is not None and math.isfinite(trial.value)


def value_of(trial: Trial, asked: Question) -> float | None:
    return trial.loss if asked.raw else trial.value


def valued_points(asked: Question) -> list[tuple[int, float]]:
    return [
        (trial.number, value)
        for trial in completed_trials(asked)
        if (value := value_of(trial, asked)) is not None and math.isfinite(value)
    ]


def value_title(asked: Question) -> str:
    if not any(trial.params_count is not None for trial in asked.snapshot.trials):
        return "value"
    return "loss" if asked.raw else "score"


def ranked_trials(asked: Question) -> list[Trial]:
    return sorted(completed_trials(asked), key=lambda trial: trial.value or 0.0, reverse=asked.snapshot.maximize)


def spelled(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
