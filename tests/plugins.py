"""Samplers and pruners as a study's own code brings them: a good one of each, and what a bad one may do."""

from __future__ import annotations

import os
import time
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class Neighbours(BaseSampler):
    """Half a step from the best point; records credentials that its process must not have."""

    def __init__(self, step: float = 0.5) -> None:
        self._step = step
        self._rng = RandomSampler()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        trial_count = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        study._storage.set_trial_system_attr(trial._trial_id, "neighbours:seen", trial_count)
        secrets = [name for name, value in os.environ.items() if "postgresql://" in value or "redis://" in value]
        study._storage.set_trial_system_attr(trial._trial_id, "neighbours:secrets", secrets)
        return {"x": min(study.best_trial.params["x"] + self._step, 9.0)} if trial_count else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._rng.sample_independent(study, trial, param_name, param_distribution)


class Outside(Neighbours):
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return "outside"


class Raises(Neighbours):
    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError("no neighbours")


class Dies(Neighbours):
    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        os._exit(3)


class Hangs(Neighbours):
    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        time.sleep(3600)
        return {}


class AfterTwo(BasePruner):
    """Prunes at the second report."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        study._storage.set_trial_system_attr(trial._trial_id, "after_two:asked", True)
        return len(trial.intermediate_values) >= 2


class RaisingPruner(BasePruner):
    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        raise ZeroDivisionError("no idea")
