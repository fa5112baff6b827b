"""TPE that reads each ended trial once proposes what Optuna's own proposes, however a study went until then."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from highnoon.shared.search import tpe
from highnoon.shared.search.tpe import CachingTPESampler

DOMAINS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.5, step=0.1),
    "width": IntDistribution(8, 512, log=True),
    "optimizer": CategoricalDistribution(("adam", "sgd", None, True)),
}


def objective(trial: optuna.Trial) -> float:
    """Branches, so that not every trial has every parameter; some are pruned, some break a constraint."""
    optimizer = trial.suggest_categorical("optimizer", ("adam", "sgd", None, True))
    value = trial.suggest_float("rate", 1e-5, 1e-1, log=True) * 10 + trial.suggest_float("dropout", 0.0, 0.5, step=0.1)
    if optimizer == "sgd":
        value += trial.suggest_float("momentum", 0.0, 1.0)
    trial.set_constraint("size", trial.suggest_int("width", 8, 512, log=True) - 300)
    trial.report(value, trial.number % 3)
    if trial.number % 5 == 4:
        raise optuna.TrialPruned
    return value


def proposed(sampler: TPESampler, directions: list[str]) -> list[dict[str, Any]]:
    study = optuna.create_study(directions=directions, sampler=sampler)
    if len(directions) == 1:
        study.optimize(objective, n_trials=70)
        return [trial.params for trial in study.trials]
    for _ in range(50):
        trial = study.ask(DOMAINS)
        study.tell(trial, [trial.params["rate"], -float(trial.params["width"])])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize(
    "options",
    [{}, {"multivariate": False}, {"group": True, "multivariate": True}, {"constant_liar": False}],
    ids=["default", "univariate", "group", "no-liar"],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_whole_studies_are_the_same(options: dict[str, Any]) -> None:
    ours, theirs = CachingTPESampler(seed=4, **options), TPESampler(seed=4, **options)
    assert proposed(ours, ["minimize"]) == proposed(theirs, ["minimize"])


def test_whole_studies_of_two_objectives_are_the_same() -> None:
    both = ["minimize", "minimize"]
    assert proposed(CachingTPESampler(seed=4), both) == proposed(TPESampler(seed=4), both)


def test_each_ended_trial_is_read_once_and_a_running_one_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(sampler=(sampler := CachingTPESampler(seed=1)))
    for _ in range(20):
        study.tell(study.ask(DOMAINS), 0.5)
    running = study.ask(DOMAINS)
    study.ask(DOMAINS)
    assert running.number not in sampler._read[tuple(sorted(DOMAINS))].rows
    reads: list[object] = []
    read = tpe._ReadTrials.values_of
    monkeypatch.setattr(tpe._ReadTrials, "values_of", lambda self, params: reads.append(params) or read(self, params))
    study.ask(DOMAINS)
    assert len(reads) == 2, "the two that run"


def test_what_was_read_of_another_trial_or_domain_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two trials with the same id, as after a warm start or a change of the space
    sampler, study = CachingTPESampler(), optuna.create_study()
    narrow, wide = ({"x": FloatDistribution(0.0, high)} for high in (1.0, 9.0))
    one, other = (create_trial(params={"x": x}, distributions=narrow, value=0.0) for x in (0.25, 0.75))
    lacking = create_trial(state=TrialState.FAIL)
    assert one._trial_id == other._trial_id

    def read(trial: Any, domains: dict[str, BaseDistribution]) -> list[float]:
        ours = sampler._get_internal_repr([trial, lacking], domains, study)
        theirs = TPESampler()._get_internal_repr([trial, lacking], domains, study)
        assert np.array_equal(ours["x"], theirs["x"])
        return [float(value) for value in ours["x"]]

    assert [read(one, narrow), read(other, narrow), read(one, wide)] == [[0.25], [0.75], [0.25]]
    # Nor is more kept than a study of some thousand trials has
    monkeypatch.setattr(tpe, "_MOST_ROWS", 0)
    kept = sampler._read[("x",)]
    assert read(one, wide) == [0.25] and sampler._read[("x",)] is not kept
