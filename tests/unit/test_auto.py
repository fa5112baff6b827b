"""The sampler `auto`: the coordinates of each kind of parameter, and what its proposals keep to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from highnoon.shared.search.auto import AutoSampler
from highnoon.shared.search.encoding import Cube, keys_of

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "penalty": FloatDistribution(1e-200, 1e200, log=True),  # whose quotient is beyond a double
    "dropout": FloatDistribution(0.0, 0.5),
    "share": FloatDistribution(0.0, 0.3, step=0.1),  # 3 * 0.1 > 0.3
    "layers": IntDistribution(1, 9, step=2),
    "units": IntDistribution(8, 512, log=True),
    "batch": CategoricalDistribution([8, 16, 32, 64]),
    "optimizer": CategoricalDistribution(["adam", "sgd", None, True]),
}
NUMBERS: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}


def study_of(space: Mapping[str, BaseDistribution], seed: int = 1, **options: Any) -> optuna.Study:
    return optuna.create_study(sampler=AutoSampler(space, seed=seed, **options))


def run(study: optuna.Study, space: dict[str, BaseDistribution], count: int, loss: Callable[[Any], float]) -> None:
    for _ in range(count):
        trial = study.ask(space)
        study.tell(trial, loss(trial.params))


@given(seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_each_value_has_its_coordinate(seed: int) -> None:
    cube = Cube(SPACE)
    rng = np.random.RandomState(seed)
    drawn = cube.spread(rng.random_sample((4, len(SPACE))))
    for points in (drawn, cube.moved(drawn, rng)):
        for row in points:
            params = cube.decode(row)
            for name, value in params.items():
                assert SPACE[name]._contains(SPACE[name].to_internal_repr(value)), (name, value)
            again = cube.encode([params])
            assert keys_of(again) == keys_of(row[None, :])


def test_numbers_in_their_order_are_near_their_neighbours_and_words_are_not() -> None:
    cube = Cube({"batch": SPACE["batch"], "optimizer": SPACE["optimizer"]})
    points = cube.encode(
        [{"batch": batch, "optimizer": name} for batch, name in ((8, "adam"), (16, None), (64, "sgd"))]
    )
    batch, optimizer = cube.squared_gaps(points)
    assert batch[0].tolist() == pytest.approx([0, 1 / 9, 1])
    assert optimizer[0].tolist() == [0, 1, 1]
    weights = np.array([4.0, 3.0])
    stretched = cube.stretched(points, weights)
    distances = ((stretched[:, None] - stretched[None]) ** 2).sum(axis=2)
    assert distances == pytest.approx(4.0 * batch + 3.0 * optimizer)


def test_no_point_is_proposed_twice_while_there_are_others() -> None:
    space: dict[str, BaseDistribution] = {
        "n": IntDistribution(1, 6),
        "c": CategoricalDistribution(["a", "b", "c", "d"]),
    }
    study = study_of(space)
    run(study, space, 24, lambda params: abs(params["n"] - 4) + (params["c"] != "b"))
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 24
    run(study, space, 1, lambda _: 0.0)


def test_trials_under_way_are_not_repeated_and_the_start_fills_the_space() -> None:
    study = study_of(NUMBERS)
    points = np.array([list(study.ask(NUMBERS).params.values()) for _ in range(8)])
    for column in points.T:
        assert np.diff(np.sort(column)).max() < 0.3, "no large gap"
    study = study_of(NUMBERS)
    run(study, NUMBERS, 10, lambda params: (params["x"] - 0.3) ** 2 + (params["y"] - 0.6) ** 2)
    ahead = np.array([list(study.ask(NUMBERS).params.values()) for _ in range(6)])
    gaps = np.sqrt(((ahead[:, None] - ahead[None]) ** 2).sum(axis=2)) + np.eye(6)
    assert gaps.min() > 1e-4


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_finds_the_best_of_a_smooth_loss(direction: str) -> None:
    study = optuna.create_study(direction=direction, sampler=AutoSampler(NUMBERS, seed=3))
    sign = 1 if direction == "minimize" else -1
    run(study, NUMBERS, 30, lambda params: sign * ((params["x"] - 0.3) ** 2 + (params["y"] - 0.6) ** 2))
    assert sign * study.best_value < 1e-3


def test_the_same_history_and_seed_give_the_same_proposal_in_another_process() -> None:
    used, fresh = study_of(NUMBERS), study_of(NUMBERS)
    run(used, NUMBERS, 15, lambda params: params["x"] + params["y"])
    fresh.add_trials(used.trials)
    for study in (used, fresh):
        study.sampler._rng.rng.seed(5)  # type: ignore[attr-defined]
    assert used.ask(NUMBERS).params == fresh.ask(NUMBERS).params


def test_where_trials_fail_it_stops_trying() -> None:
    """The objective raises in the half of the space that would otherwise be the better one."""
    study = study_of(NUMBERS)
    for _ in range(30):
        trial = study.ask(NUMBERS)
        if trial.params["x"] > 0.5:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, 1 - trial.params["x"])
    failed = [trial.state is TrialState.FAIL for trial in study.trials]
    assert sum(failed[-10:]) <= 5 and study.best_value < 0.55


def test_a_pruned_trial_counts_as_a_bad_one_whatever_it_reported() -> None:
    """Its last report comes from a shorter training: a small one must not draw the search there."""
    study = study_of(NUMBERS)
    for _ in range(30):
        trial = study.ask(NUMBERS)
        if trial.params["x"] > 0.5:
            trial.report(-5.0, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, 1 - trial.params["x"])
    assert sum(trial.state is TrialState.PRUNED for trial in study.trials[-10:]) <= 5


def test_beyond_a_few_hundred_trials_tpe_proposes_and_nothing_is_repeated() -> None:
    space: dict[str, BaseDistribution] = {"n": IntDistribution(1, 40), "m": IntDistribution(1, 40)}
    study = study_of(space)
    rng = np.random.RandomState(0)
    for n, m in rng.permutation([(n, m) for n in range(1, 41) for m in range(1, 41)])[:300].tolist():
        params = {"n": n, "m": m}
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=abs(n - 9) + abs(m - 33)))
    run(study, space, 20, lambda params: abs(params["n"] - 9) + abs(params["m"] - 33))
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 320
    assert np.mean([trial.value for trial in study.trials[-10:]]) < 12


def test_without_a_space_it_takes_what_every_trial_has() -> None:
    study = optuna.create_study(sampler=AutoSampler({}, seed=1, n_startup_trials=3))

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        return x + (trial.suggest_float("y", 0.0, 1.0) if x > 0.5 else 0.0)

    study.optimize(objective, n_trials=25)
    assert study.best_value < 0.05
