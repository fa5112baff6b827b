"""What is learnt of proposals that did not fit: a border across sizes that multiply; nothing where nothing is known."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from highnoon.shared.domain.param import Categorical, Float, Int, SearchSpace
from highnoon.shared.search.feasibility import chance_to_fit
from highnoon.shared.search.samplers import distributions

SPACE: SearchSpace = {
    "width": Int(low=64, high=512, step=64),
    "layers": Int(low=1, high=12),
    "batch": Categorical(choices=(8, 16, 32)),
    "kind": Categorical(choices=("plain", "gated", None)),
    "rate": Float(low=1e-5, high=1e-1, log=True),
    "dropout": Float(low=0.0, high=0.5),
    "always": Int(low=3, high=3),
}
DOMAINS = distributions(SPACE)
LIMIT = 256 * 6 * 16


def drawn(rng: random.Random) -> dict[str, Any]:
    return {
        "width": 64 * rng.randint(1, 8),
        "layers": rng.randint(1, 12),
        "batch": rng.choice([8, 16, 32]),
        "kind": rng.choice(["plain", "gated", None]),
        "rate": 10 ** rng.uniform(-5, -1),
        "dropout": rng.uniform(0, 0.5),
        "always": 3,
    }


def size(params: dict[str, Any]) -> float:
    """A gated model is twice as large."""
    factor = 2 if params["kind"] == "gated" else 1
    return float(params["width"] * params["layers"] * params["batch"] * factor)


def trial_of(params: dict[str, Any], state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    missed = size(params) > LIMIT
    return create_trial(
        state=TrialState.PRUNED if missed else state,
        value=None if missed or state is not TrialState.COMPLETE else 0.0,
        params=params,
        distributions=DOMAINS,
        system_attrs={"constraints:memory": 0.01} if missed else {},
    )


def history(count: int, seed: int = 1) -> list[FrozenTrial]:
    rng = random.Random(seed)
    return [trial_of(drawn(rng)) for _ in range(count)]


def test_it_knows_most_of_what_it_has_not_seen() -> None:
    chance = chance_to_fit(history(40), DOMAINS)
    assert chance is not None
    rng = random.Random(2)
    unseen = [drawn(rng) for _ in range(500)]
    right = sum((chance(params) >= 0.5) == (size(params) <= LIMIT) for params in unseen)
    assert right >= 0.85 * len(unseen)
    sure = [params for params in unseen if chance(params) >= 0.9]
    assert len(sure) > 50
    assert sum(size(params) > LIMIT for params in sure) <= 0.05 * len(sure)


def test_larger_is_never_likelier() -> None:
    chance = chance_to_fit(history(40), DOMAINS)
    assert chance is not None
    point = drawn(random.Random(3))
    by_layers = [chance({**point, "layers": layers}) for layers in range(1, 13)]
    assert by_layers == sorted(by_layers, reverse=True)


@pytest.mark.parametrize("count", [0, 9])
def test_a_few_trials_say_nothing(count: int) -> None:
    assert chance_to_fit(history(count), DOMAINS) is None


def test_without_a_miss_nothing_is_screened_and_without_a_fit_nothing_can_be() -> None:
    trials = history(60)
    assert chance_to_fit([trial for trial in trials if not trial.constraints], DOMAINS) is None
    assert chance_to_fit([trial for trial in trials if trial.constraints], DOMAINS) is None


def test_what_failed_or_runs_says_nothing_and_what_was_pruned_did_fit() -> None:
    small = {**drawn(random.Random(4)), "width": 64, "layers": 1, "batch": 8}
    missed = [trial for trial in history(60) if trial.constraints]
    failed = [create_trial(state=TrialState.FAIL, params=small, distributions=DOMAINS) for _ in range(9)]
    assert chance_to_fit(missed + failed, DOMAINS) is None
    assert chance_to_fit([*missed, trial_of(small, TrialState.PRUNED)], DOMAINS) is not None


def test_a_long_study_costs_no_more_than_a_short_one() -> None:
    trials = history(60) * 100
    began = time.thread_time()
    assert chance_to_fit(trials, DOMAINS) is not None
    assert time.thread_time() - began < 1.0


def test_a_point_out_of_bounds_counts_as_the_nearest_within() -> None:
    chance = chance_to_fit(history(60), DOMAINS)
    assert chance is not None
    point = drawn(random.Random(3))
    assert chance({**point, "layers": 0}) == chance({**point, "layers": 1})
