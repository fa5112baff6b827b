"""ASHA's decisions: Ray's rule, and values of the rung that is decided on, whenever the rungs became known."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler

from highnoon.shared.search.asha import AshaPruner, Hyperband, is_good

CURVE = [5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.2, 1.1, 1.0, 0.9]


PRUNERS = [
    pytest.param(lambda: AshaPruner(grace_period=1), id="asha"),
    pytest.param(lambda: Hyperband(min_resource=1, max_resource=2), id="hyperband of one bracket"),
]


def study_with(pruner: optuna.pruners.BasePruner, direction: str = "minimize") -> optuna.Study:
    return optuna.create_study(sampler=RandomSampler(seed=1), pruner=pruner, direction=direction)


def trained(study: optuna.Study, values: list[float]) -> tuple[optuna.Trial, int | None]:
    """A trial that reports these values, and the step at which it was to end."""
    trial = study.ask()
    for step, value in enumerate(values):
        trial.report(value, step)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return trial, step
    study.tell(trial, values[-1])
    return trial, None


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_value_is_good_where_ray_says_so(factor: int) -> None:
    draw = random.Random(factor)
    for count in range(1, 40):
        others = [draw.random() for _ in range(count)]
        for value in (draw.random(), *others):
            # Ray compares rewards, of which the larger is better.
            cutoff = np.nanpercentile([-one for one in others], (1 - 1 / factor) * 100)
            assert is_good(value, others, factor) is not bool(-value < cutoff - 1e-12)
    assert is_good(1.0, [], factor), "the first one goes on"


def test_rungs_follow_from_grace_period_and_reduction_factor() -> None:
    study = study_with(AshaPruner(grace_period=2, reduction_factor=3))
    assert trained(study, CURVE)[1] is None
    assert trained(study, CURVE)[1] is None, "an equal one is no worse"
    assert trained(study, [value + 1 for value in CURVE])[1] == 2
    late = [*CURVE[:6], *(value + 1 for value in CURVE[6:])]
    assert trained(study, late)[1] == 6
    noted = [sorted(trial.system_attrs) for trial in study.trials]
    assert noted[1:] == [["completed_rung_0", "completed_rung_1"], ["completed_rung_0"], noted[0]]


def test_the_brackets_of_hyperband_begin_at_later_steps() -> None:
    pruner = Hyperband(min_resource=2, max_resource=18, reduction_factor=3)
    study = study_with(pruner)
    trained(study, CURVE)
    assert [bracket._step(0) for bracket in cast(list[AshaPruner], pruner._pruners)] == [2, 6, 18]


def test_larger_is_better_where_the_study_maximizes() -> None:
    study = study_with(AshaPruner(grace_period=1), "maximize")
    assert trained(study, [1.0, 2.0, 3.0])[1] is None
    assert trained(study, [1.0, 1.9, 9.0])[1] == 1
    assert trained(study, [1.0, float("nan")])[1] == 1


@pytest.mark.parametrize("made", PRUNERS)
def test_trials_that_ended_before_the_rungs_were_known_count(made: Callable[[], optuna.pruners.BasePruner]) -> None:
    study = study_with(optuna.pruners.NopPruner())
    trained(study, CURVE)
    study.pruner = made()
    assert trained(study, [value + 1 for value in CURVE])[1] == 1


@pytest.mark.parametrize("made", PRUNERS)
def test_a_trial_is_compared_by_its_value_at_the_rung_and_not_by_its_newest(
    made: Callable[[], optuna.pruners.BasePruner],
) -> None:
    # Given eight workers whose trials have gone far when the first of them shows how many steps a whole one has
    study = study_with(optuna.pruners.NopPruner())
    running = [study.ask() for _ in range(8)]
    for step, value in enumerate(CURVE[:-1]):
        for number, trial in enumerate(running):
            trial.report(value + number / 100, step)
    study.pruner = made()
    for trial in running:
        trial.report(0.9, len(CURVE) - 1)
        trial.should_prune()
        study.tell(trial, 0.9)

    # Then one that begins better than any of them goes on
    assert trained(study, [value - 0.1 for value in CURVE])[1] is None
