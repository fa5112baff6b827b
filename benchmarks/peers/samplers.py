"""The samplers of HyperOpt, SMAC3 and Syne Tune, each with what its library does by default, behind one protocol.

A program of its own, for an environment in which neither HighNoon nor Optuna is: `python samplers.py NAME` reads a
question from each line of its input, `open`, `ask` or `tell`, and answers it with one line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import warnings
from typing import Any, Protocol


class Study(Protocol):
    """One search."""

    def ask(self, trial: int) -> dict[str, Any]: ...

    def tell(self, trial: int, loss: float) -> None: ...


class HyperOpt:
    """`tpe.suggest`, as `fmin` calls it; of choices it gets the places, as `hp.choice` has it."""

    def __init__(self, space: dict[str, list[Any]], seed: int) -> None:
        import numpy as np
        from hyperopt import base, tpe

        self._base, self._suggest = base, tpe.suggest
        self._space = {name: self._domain(name, *written) for name, written in space.items()}
        self._domain_of_all = base.Domain(lambda _: 0.0, self._space)
        self._trials = base.Trials()
        self._random = np.random.default_rng(seed)

    @staticmethod
    def _domain(name: str, kind: str, low: Any, high: Any = None) -> Any:
        import math

        from hyperopt import hp

        match kind:
            case "categorical":
                return hp.choice(name, low)
            case "uniform":
                return hp.uniform(name, low, high)
            case "int":
                return hp.uniformint(name, low, high)
            case "int_log":
                return hp.qloguniform(name, math.log(low), math.log(high), 1)
        raise ValueError(kind)

    def ask(self, trial: int) -> dict[str, Any]:
        from hyperopt import space_eval

        ids = self._trials.new_trial_ids(1)
        self._trials.refresh()
        found = self._suggest(ids, self._domain_of_all, self._trials, int(self._random.integers(2**31 - 1)))
        self._trials.insert_trial_docs(found)
        self._trials.refresh()
        document = self._trials.trials[-1]
        document["state"] = self._base.JOB_STATE_RUNNING
        chosen = {name: values[0] for name, values in document["misc"]["vals"].items() if values}
        return dict(space_eval(self._space, chosen))

    def tell(self, trial: int, loss: float) -> None:
        document = self._trials.trials[trial]
        document["result"] = {"loss": loss, "status": self._base.STATUS_OK}
        document["state"] = self._base.JOB_STATE_DONE
        self._trials.refresh()


class Smac:
    """The facade for hyperparameters: a random forest and expected improvement. Each point is asked once."""

    def __init__(self, space: dict[str, list[Any]], seed: int) -> None:
        from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
        from smac import HyperparameterOptimizationFacade, Scenario

        known = ConfigurationSpace(seed=seed)
        self._choices: dict[str, list[Any]] = {}
        for name, (kind, *bounds) in space.items():
            if kind == "categorical":
                # By place: ConfigSpace makes a text of each choice.
                self._choices[name] = bounds[0]
                known.add(Categorical(name, [*range(len(bounds[0]))]))
            elif kind == "uniform":
                known.add(Float(name, tuple(bounds)))
            else:
                known.add(Integer(name, tuple(bounds), log=kind == "int_log"))
        self._folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            known, deterministic=True, n_trials=100, seed=seed, output_directory=os.fspath(self._folder.name)
        )
        self._smac = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=logging.ERROR
        )
        self._asked: dict[int, Any] = {}

    def ask(self, trial: int) -> dict[str, Any]:
        self._asked[trial] = info = self._smac.ask()
        point = dict(info.config)
        return {
            name: self._choices[name][int(value)] if name in self._choices else value for name, value in point.items()
        }

    def tell(self, trial: int, loss: float) -> None:
        from smac.runhistory.dataclasses import TrialValue

        self._smac.tell(self._asked.pop(trial), TrialValue(cost=loss), save=False)


class SyneTune:
    """BORE (expected improvement by classification), the model-based searcher that needs no further package."""

    def __init__(self, space: dict[str, list[Any]], seed: int) -> None:
        from syne_tune.config_space import choice, lograndint, randint, uniform
        from syne_tune.optimizer.baselines import BORE

        kinds = {
            "categorical": lambda choices: choice(of_one_type(choices)),
            "uniform": uniform,
            "int": randint,
            "int_log": lograndint,
        }
        known = {name: kinds[kind](*bounds) for name, (kind, *bounds) in space.items()}
        self._scheduler = BORE(known, metric="loss", do_minimize=True, random_seed=seed)
        self._trials: dict[int, Any] = {}

    def ask(self, trial: int) -> dict[str, Any]:
        from datetime import datetime

        from syne_tune.backend.trial_status import Trial

        suggestion = self._scheduler.suggest()
        self._trials[trial] = Trial(trial, suggestion.config, datetime.now())
        self._scheduler.on_trial_add(self._trials[trial])
        return dict(suggestion.config)

    def tell(self, trial: int, loss: float) -> None:
        self._scheduler.on_trial_complete(self._trials.pop(trial), {"loss": loss})


def of_one_type(choices: list[Any]) -> list[Any]:
    """The choices as Syne Tune accepts them: 0.1 and 1 as 0.1 and 1.0."""
    return [float(one) for one in choices] if {type(one) for one in choices} == {int, float} else choices


KINDS = {"hyperopt": HyperOpt, "smac": Smac, "syne": SyneTune}


def main() -> None:
    """Answers until its input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    warnings.simplefilter("ignore")
    study: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any] = {}
        match question["do"]:
            case "open":
                study = KINDS[sys.argv[1]](question["space"], question["seed"])
            case "ask":
                answer["params"] = study.ask(question["trial"])
            case "tell":
                study.tell(question["trial"], question["loss"])
        answers.write(json.dumps(answer, default=lambda value: value.item()) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
