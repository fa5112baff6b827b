"""What a search for two objectives finds in 200 trials of a ZDT1-like function, against Optuna's own NSGA-II."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

import optuna
import pytest
from optuna.distributions import FloatDistribution

import highnoon as hn
from highnoon.shared.domain.front import hypervolume
from highnoon.shared.domain.space import parse_space
from highnoon.shared.search.known_trials import KnownTrials
from highnoon.shared.search.sampling_space import SamplingSpace

WIDTH, TRIALS, SEEDS = 5, 200, range(5)
REFERENCE = (1.1, 10.0)
"""Beyond the worst that the function gives."""


def zdt1(params: Mapping[str, float]) -> tuple[float, float]:
    first, *others = (params[f"x{place}"] for place in range(WIDTH))
    distance = 1 + 9 * sum(others) / len(others)
    return first, distance * (1 - math.sqrt(first / distance))


def volume(values: Sequence[Sequence[float]]) -> float:
    return hypervolume([tuple(one) for one in values], REFERENCE)


def theirs(seed: int) -> float:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=optuna.samplers.NSGAIISampler(seed=seed))
    study.optimize(
        lambda trial: zdt1({f"x{place}": trial.suggest_float(f"x{place}", 0, 1) for place in range(WIDTH)}),
        n_trials=TRIALS,
    )
    return volume([trial.values for trial in study.trials])


def ours(sampler: str, seed: int) -> float:
    hpo = hn.HPOTrialManager("zdt1", objectives={"f1": "minimize", "f2": "minimize"}, sampler=sampler, seed=seed)
    space = {f"x{place}": ("uniform", 0.0, 1.0) for place in range(WIDTH)}
    hpo.optimize(zdt1, space, n_trials=TRIALS, show_progress=False)
    front = {trial.number for trial in hpo.best_trials}
    assert volume([trial.values for trial in hpo.trials if trial.number in front]) == pytest.approx(
        volume([trial.values for trial in hpo.trials])
    )
    return volume([trial.values for trial in hpo.trials])


@pytest.fixture(scope="module")
def optunas() -> float:
    return median(map(theirs, SEEDS))


@pytest.mark.parametrize("sampler", ["auto", "nsga2"])
def test_as_much_volume_as_optunas_nsga2_within_two_percent(sampler: str, optunas: float) -> None:
    assert median(ours(sampler, seed) for seed in SEEDS) >= 0.98 * optunas


def test_of_a_large_study_the_front_is_still_known() -> None:
    known = KnownTrials(SamplingSpace(parse_space({"x0": ["uniform", 0.0, 1.0]}), ()))
    study = optuna.create_study(directions=["minimize", "maximize"])
    domains = {"x0": FloatDistribution(0.0, 1.0)}
    for number in range(1200):
        # The oldest ones are the best, half of them in the first objective and half in the second.
        values = [number / 10, 100.0 * (number % 2)] if number < 20 else [50.0 + number, 0.5 - number]
        study.add_trial(optuna.create_trial(params={"x0": number / 1200}, distributions=domains, values=values))
    known.few(study, study.get_trials(deepcopy=False))
    few = known.few(study, study.get_trials(deepcopy=False))
    assert len(few) < 1000
    assert {trial.number for trial in study.best_trials} <= {trial.number for trial in few}
