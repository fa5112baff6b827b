"""A study for readers, made by us or by another program: no spec is needed, no sampler built, nothing is written.

For dashboards. A trial that has ended never changes, so that each is translated once, however often it is looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from highnoon.shared.domain.front import minimized, pareto_front
from highnoon.shared.domain.note import Notes
from highnoon.shared.domain.param import Categorical, Float, Int, Param, SearchSpace
from highnoon.shared.domain.trial import Trial
from highnoon.shared.domain.trial_environment import ENVIRONMENT
from highnoon.shared.store.optuna_trials import trial_of
from highnoon.shared.store.study_notes import StudyNotes


class StudyView:
    """What OptunaStore.view gives. Safe to share between threads."""

    def __init__(self, study: optuna.Study, error_boundary: Callable[[], AbstractContextManager[None]]) -> None:
        self._study = study
        self._error_boundary = error_boundary
        self._trials: list[Trial] = []
        self._open: list[int] = []
        """Places of those that may change."""
        self._space: SearchSpace = {}
        self._lock = Lock()

    @property
    def direction(self) -> str:
        """`minimize` or `maximize`; several of them where the study has several objectives."""
        with self._error_boundary():
            return ", ".join(direction.name.lower() for direction in self._study.directions)

    def notes(self) -> Notes:
        """What people wrote beside it and its trials."""
        with self._error_boundary():
            return StudyNotes(self._study._storage, self._study._study_id).read()

    def environment(self, trial: Trial) -> Mapping[str, Any] | None:
        """What a trial of `HPOTrialManager` ran in; None where that is not recorded."""
        with self._error_boundary():
            found = self._study.user_attrs.get(f"{ENVIRONMENT}:{trial.attrs.get(ENVIRONMENT)}")
        return found if isinstance(found, Mapping) else None

    def best(self) -> list[Trial]:
        """The best feasible COMPLETE trial; of several objectives every one that none beats in all; [] without any."""
        with self._lock, self._error_boundary():
            return best_trials(self._study)

    def objectives(self) -> tuple[str, ...]:
        """The names of several objectives, as its program gave them, else their places; () of a study with one."""
        with self._error_boundary():
            if len(self._study.directions) == 1:
                return ()
            names = self._study._storage.get_study_system_attrs(self._study._study_id).get("study:metric_names")
            return tuple(names or map(str, range(len(self._study.directions))))

    def trials(self) -> list[Trial]:
        """All trials by number. Raises ServiceUnavailable."""
        return self.read()[0]

    def read(self) -> tuple[list[Trial], list[Trial]]:
        """All trials by number, and those of them that have not ended. Raises ServiceUnavailable."""
        with self._lock, self._error_boundary():
            frozen = self._study.get_trials(deepcopy=False)
            known = len(self._trials)
            if known and (known > len(frozen) or frozen[known - 1].number != self._trials[-1].number):
                self._trials, self._open, known = [], [], 0  # another program has removed or inserted some
            for place in self._open:
                self._note_domains(frozen[place], renews=False)  # one that defines its space as it runs
            for trial in frozen[known:]:
                self._note_domains(trial, renews=True)
            self._trials.extend(map(trial_of, frozen[known:]))
            for place in self._open:
                self._trials[place] = trial_of(frozen[place])
            self._open = [
                place for place in (*self._open, *range(known, len(frozen))) if not frozen[place].state.is_finished()
            ]
            return self._trials.copy(), [self._trials[place] for place in self._open]

    def space(self) -> SearchSpace:
        """The domains that its trials were drawn from, of those that `trials` has seen; the newest of each name."""
        return dict(self._space)

    def param_importance(self, objective: int = 0) -> dict[str, float]:
        """Shares that add up to 1, largest first (PED-ANOVA); {} below two COMPLETE trials.

        Of several objectives those for the one at this place.
        """
        with self._lock, self._error_boundary():
            complete = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
            return {} if len(complete) < 2 else importances(self._study, objective)[0]

    def _note_domains(self, frozen: optuna.trial.FrozenTrial, *, renews: bool) -> None:
        for name, domain in frozen.distributions.items():
            param = param_of(domain) if renews or name not in self._space else None
            if param is not None:
                self._space[name] = param


def best_trials(study: optuna.Study) -> list[Trial]:
    """The feasible COMPLETE trials that none beats in all objectives, by the first; of one objective the best."""
    if len(study.directions) == 1:
        try:
            return [trial_of(study.best_trial)]
        except ValueError:
            return []
    ways = [direction.name.lower() for direction in study.directions]
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    feasible = [trial for trial in complete if all(miss <= 0 for miss in trial.constraints.values())]
    return list(map(trial_of, pareto_front(feasible, lambda trial: minimized(trial.values, ways))))


def importances(study: optuna.Study, objective: int = 0) -> tuple[dict[str, float], bool]:
    """The shares, and whether Optuna warned that they say nothing; its warnings name files of its own."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        target = (lambda trial: trial.values[objective]) if len(study.directions) > 1 else None
        shares = optuna.importance.get_param_importances(study, target=target)
    return shares, bool(warned) and len(shares) > 1


def param_of(domain: optuna.distributions.BaseDistribution) -> Param | None:
    """Our own of Optuna's domain; None for a kind that we do not have."""
    match domain:
        case FloatDistribution():
            return Float(domain.low, domain.high, step=domain.step, log=domain.log)
        case IntDistribution():
            return Int(domain.low, domain.high, step=domain.step, log=domain.log)
        case CategoricalDistribution():
            return Categorical(tuple(domain.choices))
        case _:
            return None
