"""HPOTrialManager: a study in this process, kept in memory or in any database that Optuna can use.

Owns the guide's signature and its checks. Creating one connects to nothing, so that an objective file may do it at
module level: a worker's trial process has neither database nor credentials. `local_run` runs the trials.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from highnoon import current_trial
from highnoon.config import REHEARSAL_TRIALS, limited_in_rehearsal
from highnoon.shared.domain import errors
from highnoon.shared.domain.errors import (
    InvalidInput,
    NoCompletedTrial,
    Problem,
    StudyConflict,
    UserInputError,
)
from highnoon.shared.domain.score import ParetoPoint, pareto_front
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.suggestions import cut_short
from highnoon.shared.domain.trial import Params, Trial
from highnoon.shared.objective.defined_trial import takes_trial
from highnoon.shared.runtime.urls import normalise

if TYPE_CHECKING:  # Optuna takes half a second to import, and an objective in a trial process needs none of it
    from highnoon.shared.store.optuna_store import OptunaStore
    from highnoon.shared.store.optuna_study import OptunaStudy

_NOT_KNOWN_YET: dict[str, Any] = {
    "objective": "in.process:objective",
    "search_space": {"unknown": ["categorical", [None]]},
}
"""Replaces what only `optimize` knows, so that everything else can be checked before."""

_IN_A_WORKERS_TRIAL = "HIGHNOON_TICKET"
"""Set by workers in the environment of a trial process."""


class HPOTrialManager:
    """A study of `study_name`. Raises InvalidInput with every mistake in its arguments at once.

    Managers that name the same study and storage, in any process or machine, add trials to the same study; with
    `load_if_exists=False` it must be a new one. `sampler` and `pruner` are names, or dicts of a name and options.
    `early_stop={"patience": 30}` ends a call of `optimize` when so many trials in a row brought no better value.
    `warm_start` names studies of the same storage whose trials the sampler knows too; they are not counted.

    With a `param_budget` trials are ranked by loss and size, see `shared.domain.score`; without one by their loss.
    """

    TrialPruned = errors.TrialPruned
    report = staticmethod(current_trial.report)
    should_prune = staticmethod(current_trial.should_prune)
    report_params = staticmethod(current_trial.report_params)

    def __init__(
        self,
        study_name: str,
        n_trials: int = 50,
        direction: str = "minimize",
        storage: str | None = None,
        pruner: str | Mapping[str, Any] = "median",
        sampler: str | Mapping[str, Any] = "tpe",
        load_if_exists: bool = True,
        seed: int | None = None,
        param_budget: int | None = None,
        lambda_efficiency: float = 0.1,
        param_budget_hard: bool = False,
        memory_warning_pct: float | None = None,
        memory_grace_steps: int | None = None,
        prefetch_buffer_size: int | None = None,
        trial_memory_limit: int | str | None = None,
        early_stop: Mapping[str, Any] | None = None,
        warm_start: Sequence[str] = (),
    ) -> None:
        self._written = {
            "name": study_name,
            "n_trials": n_trials,
            "direction": direction,
            "pruner": pruner,
            "sampler": sampler,
            "seed": seed,
            "param_budget": param_budget,
            "lambda_efficiency": lambda_efficiency,
            "param_budget_hard": param_budget_hard,
            "memory_warning_pct": memory_warning_pct,
            "memory_grace_steps": memory_grace_steps,
            "prefetch_buffer_size": prefetch_buffer_size,
            "trial_memory_limit": trial_memory_limit,
            "early_stop": early_stop,
            "warm_start": warm_start,
        }
        self._spec = _checked("HPOTrialManager", {**self._written, **_NOT_KNOWN_YET}, _storage_problems(storage))
        self._url = storage
        self._must_be_new = not load_if_exists
        self._store: OptunaStore | None = None
        self._study: OptunaStudy | None = None

    def optimize(
        self,
        objective: Callable[[Any], object],
        search_space: Mapping[str, Any] | None = None,
        n_trials: int | None = None,
        callbacks: Iterable[Callable[[Any, Any], object]] | Callable[[Any, Any], object] | None = None,
        *,
        param_constraints: Sequence[str] = (),
    ) -> Params:
        """Adds trials to the study, one after another; returns the best parameters that the study has then.

        `n_trials` is how many this call adds, by default the manager's (a few in a rehearsal). After each trial every
        callback is called as f(study, trial), with Optuna's own objects; `study.stop()` ends this call, and what a
        callback raises is logged. A point that breaks one of `param_constraints` ("a <= b") is never run.

        Without a `search_space` the objective takes a `trial`, as Optuna's do, and suggests parameters as it runs.

        Raises InvalidInput with every mistake at once, StudyConflict when the study has another direction or a space
        that may not become this one,
        EveryTrialFailed when all trials failed, and NoCompletedTrial when all were pruned.
        """
        _refuse_in_a_workers_trial("optimize()", "Guard the call with: if __name__ == '__main__':")
        if search_space is None and callable(objective) and not takes_trial(objective):
            search_space = {}  # is refused, with what to write
        called = [callbacks] if callable(callbacks) else callbacks or ()
        asked = {
            **self._written,
            **_NOT_KNOWN_YET,
            "search_space": search_space,
            "param_constraints": param_constraints,
        }
        spec = _checked(
            "optimize()",
            asked if n_trials is None else {**asked, "n_trials": n_trials},
            [*_callable_problems("objective", [objective]), *_callback_problems(called)],
        )
        for line in cut_short(search_space or {}, spec.search_space):
            logging.getLogger("highnoon").warning("optimize(): %s", line)
        spec = spec.model_copy(update={"n_trials": limited_in_rehearsal(spec.n_trials, REHEARSAL_TRIALS)})
        study = self._joined(spec)
        from highnoon.local_run import run_trials

        run_trials(study, spec, objective, list(called))
        return self.best_params

    @property
    def best_trial(self) -> Trial:
        """The best completed trial of the study, of all processes. Raises NoCompletedTrial."""
        best = self._results().best_trial()
        if best is None:
            raise self._nothing_completed()
        return best

    @property
    def best_params(self) -> Params:
        """The parameters of the best trial. Raises NoCompletedTrial."""
        return dict(self.best_trial.params)

    @property
    def best_value(self) -> float:
        """The value of the best trial: its score, which is its loss without a param_budget. Raises NoCompletedTrial."""
        return _present(self.best_trial.value, "value", self._spec)

    @property
    def best_loss(self) -> float:
        """The loss of the best trial, as its objective gave it. Raises NoCompletedTrial."""
        return _present(self.best_trial.loss, "loss", self._spec)

    @property
    def trials(self) -> list[Trial]:
        """All trials of the study by number, of all processes, also the running and the failed ones."""
        return self._results().trials()

    def pareto_front(self) -> list[tuple[int, float, int]]:
        """(trial number, loss, parameter count) of every completed trial that none beats in both, smallest first.

        Independent of lambda. Raises NoCompletedTrial, and UserInputError when no completed trial reported its size.
        """
        completed = self._results().trials([TrialState.COMPLETE])
        if not completed:
            raise self._nothing_completed()
        candidates = [
            ParetoPoint(number=trial.number, loss=trial.loss, params=trial.params_count)
            for trial in completed
            if trial.loss is not None and trial.params_count is not None
        ]
        if not candidates:
            raise UserInputError(
                f"study {self._spec.name!r} has no trial with a known size. Build the model with hn.create_model, call "
                'hpo.report_params(n) in the objective, or return {"loss": ..., "params": ...}.'
            )
        front = pareto_front(candidates, maximize=self._spec.direction == "maximize")
        return [(one.number, one.loss, one.params) for one in front]

    def get_param_importance(self) -> dict[str, float]:
        """How much each parameter mattered, as shares of 1, largest first. Raises NoCompletedTrial.

        With fewer than two completed trials, or where nothing sets the better ones apart, all shares are equal, and a
        warning is logged.
        """
        if not self._results().trials([TrialState.COMPLETE]):
            raise self._nothing_completed()
        return self._results().param_importance()

    def _joined(self, spec: StudySpec) -> OptunaStudy:
        """The study, created if it does not exist. Raises StudyConflict."""
        store = self._connected()
        if self._must_be_new and store.exists(spec.name):
            raise StudyConflict(
                f"study {spec.name!r} exists already, and load_if_exists=False asks for a new one. "
                "Choose another study_name, or leave load_if_exists out to add trials to it."
            )
        store.check_warm_start(spec)
        store.create_study(spec.name, spec.direction, spec.scoring, spec.search_space)
        self._must_be_new = False
        self._study = store.open(spec)
        return self._study

    def _results(self) -> OptunaStudy:
        """The study, to read it. Raises UnknownStudy when it does not exist yet."""
        if self._study is None:
            _refuse_in_a_workers_trial("results", "Read them where optimize() was called, or by `coordinator best`.")
            store = self._connected()
            if self._url is None:
                store.create_study(self._spec.name, self._spec.direction, self._spec.scoring)
            self._study = store.open(self._spec)
        return self._study

    def _connected(self) -> OptunaStore:
        if self._store is None:
            from highnoon.shared.store.optuna_store import OptunaStore

            self._store = OptunaStore(self._url)
        return self._store

    def _nothing_completed(self) -> NoCompletedTrial:
        states = Counter(str(trial.state) for trial in self.trials)
        ended = ", ".join(f"{count} {state}" for state, count in states.most_common()) or "it has no trials"
        return NoCompletedTrial(f"study {self._spec.name!r} has no completed trial yet: {ended}")


def _present(number: float | None, what: str, spec: StudySpec) -> float:
    if number is None:
        raise errors.InvariantBroken(f"the best trial of study {spec.name} completed without a {what}")
    return number


def _checked(source: str, written: Mapping[str, Any], found: Sequence[Problem]) -> StudySpec:
    try:
        spec = StudySpec.from_json(written)
    except InvalidInput as invalid:
        own = [replace(problem, key="study_name") if problem.key == "name" else problem for problem in invalid.problems]
        raise InvalidInput(source, [*own, *found]) from None
    if found:
        raise InvalidInput(source, found)
    return spec


def _storage_problems(storage: object) -> Sequence[Problem]:
    if storage is None:
        return ()
    if not isinstance(storage, str):
        return [Problem(key="storage", message="must be the address of a database, or None", value=storage)]
    try:
        normalise(storage, key="storage")
    except InvalidInput as invalid:
        return invalid.problems
    return ()


def _callable_problems(key: str, values: Iterable[object]) -> list[Problem]:
    return [Problem(key=key, message="must be callable", value=value) for value in values if not callable(value)]


def _callback_problems(called: object) -> list[Problem]:
    if isinstance(called, Iterable):
        return _callable_problems("callbacks", called)
    return [Problem(key="callbacks", message="must be functions of (study, trial)", value=called)]


def _refuse_in_a_workers_trial(what: str, remedy: str) -> None:
    if _IN_A_WORKERS_TRIAL in os.environ:
        raise UserInputError(f"{what}: a worker's trial runs in this process, without any database. {remedy}")
