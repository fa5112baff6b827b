"""Objectives as Optuna's users write them, through a trial of ours: the same parameters, trial by trial.

Each is our own text in the manner of Optuna's examples. Where a library is not installed, its objective is left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler

import highnoon as hn
from highnoon.shared.search.presampling import reseed, seed_of

N_TRIALS = 6
OF = {"with_keras": 2, "with_pruning": 16}


def with_scikit_learn(trial: optuna.Trial) -> float:
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    data = load_iris()
    if trial.suggest_categorical("classifier", ["SVC", "RandomForest"]) == "SVC":
        model: Any = SVC(C=trial.suggest_float("svc_c", 1e-3, 1e3, log=True), gamma="auto")
    else:
        depth = trial.suggest_int("rf_max_depth", 2, 16, log=True)
        model = RandomForestClassifier(max_depth=depth, n_estimators=5, random_state=0)
    return float(cross_val_score(model, data.data, data.target, cv=3).mean())


def with_xgboost(trial: optuna.Trial) -> float:
    import xgboost
    from sklearn.datasets import load_iris

    data = load_iris()
    params = {
        "objective": "multi:softprob",
        "num_class": 3,
        "booster": trial.suggest_categorical("booster", ["gbtree", "gblinear", "dart"]),
        "lambda": trial.suggest_float("lambda", 1e-8, 1.0, log=True),
        "nthread": 1,
    }
    if params["booster"] != "gblinear":
        params["max_depth"] = trial.suggest_int("max_depth", 3, 9, step=2)
        params["grow_policy"] = trial.suggest_categorical("grow_policy", ["depthwise", "lossguide"])
    booster = xgboost.train(params, xgboost.DMatrix(data.data, label=data.target), num_boost_round=3)
    return float((booster.predict(xgboost.DMatrix(data.data)).argmax(axis=1) == data.target).mean())


def with_lightgbm(trial: optuna.Trial) -> float:
    import lightgbm
    from sklearn.datasets import load_iris

    data = load_iris()
    params = {
        "objective": "multiclass",
        "num_class": 3,
        "verbosity": -1,
        "num_threads": 1,
        "num_leaves": trial.suggest_int("num_leaves", 2, 64),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.4, 1.0),
        "bagging_freq": trial.suggest_int("bagging_freq", 1, 7),
    }
    model = lightgbm.train(params, lightgbm.Dataset(data.data, label=data.target), num_boost_round=3)
    return float((model.predict(data.data).argmax(axis=1) == data.target).mean())


def with_keras(trial: optuna.Trial) -> float:
    import keras
    import numpy

    keras.utils.set_random_seed(1)
    inputs, labels = numpy.random.rand(64, 8), numpy.random.randint(0, 2, 64)
    model = keras.Sequential()
    for layer in range(trial.suggest_int("n_layers", 1, 2)):
        units = trial.suggest_int(f"n_units_{layer}", 4, 16, log=True)
        model.add(keras.layers.Dense(units, activation="relu"))
        model.add(keras.layers.Dropout(trial.suggest_float(f"dropout_{layer}", 0.0, 0.5)))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adam(rate))
    return float(model.fit(inputs, labels, epochs=1, verbose=0).history["loss"][-1])


def with_pruning(trial: optuna.Trial) -> float:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import SGDClassifier

    data = load_iris()
    model = SGDClassifier(alpha=trial.suggest_float("alpha", 1e-5, 1e-1, log=True), random_state=0)
    for step in range(8):
        model.partial_fit(data.data, data.target, classes=[0, 1, 2])
        trial.report(float(model.score(data.data, data.target)), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(model.score(data.data, data.target))


class PerTrial(RandomSampler):
    """Seeded for each trial as ours are, by the study's seed and the trial's number."""

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        reseed(self, seed_of(7, trial.number))


@pytest.mark.parametrize(
    ("objective", "library"),
    [
        (with_scikit_learn, "sklearn"),
        (with_xgboost, "xgboost"),
        (with_lightgbm, "lightgbm"),
        (with_keras, "keras"),
        (with_pruning, "sklearn"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_the_same_trials_as_optunas_optimize(objective: Callable[[optuna.Trial], float], library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    n_trials = OF.get(objective.__name__, N_TRIALS)
    expected = optuna.create_study(direction="maximize", sampler=PerTrial(), pruner=optuna.pruners.MedianPruner())
    expected.optimize(objective, n_trials=n_trials)
    hpo = hn.HPOTrialManager("same", n_trials=n_trials, direction="maximize", sampler="random", pruner="median", seed=7)
    hpo.optimize(objective)

    for ours, theirs in zip(hpo.trials, expected.get_trials(), strict=True):
        assert ours.params == theirs.params and str(ours.state) == theirs.state.name
        assert ours.value == theirs.value or ours.value == pytest.approx(theirs.value)
    if objective is with_pruning:
        assert any(str(trial.state) == "PRUNED" for trial in hpo.trials)
