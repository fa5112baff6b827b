"""One study: choose points, start trials, report to them, finish them, read them.

Decides; writing is left to `Trials`, proposing to `shared.search`. While the database is away every method raises
ServiceUnavailable and may be called again: reports and endings are idempotent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import wraps
from importlib.util import find_spec
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial

from highnoon.shared.domain.errors import InvalidInput, InvariantBroken, MissingExtra, Problem, UserInputError, nearest
from highnoon.shared.domain.lease import LostAttempt, Waiting
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Params, Report, Trial
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.presampling import Grid, Sampled, as_stored, sample, seed_of, snapshot_of
from highnoon.shared.search.samplers import Distributions, distributions
from highnoon.shared.store.optuna_trials import (
    NewTrial,
    StartedTrial,
    Trials,
    inherited_by_retry,
    trial_of,
)
from highnoon.shared.store.trial_results import failure, trial_result

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def _acting(method: Callable[Concatenate[OptunaStudy, P], R]) -> Callable[Concatenate[OptunaStudy, P], R]:
    @wraps(method)
    def act(self: OptunaStudy, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._error_boundary():
            return method(self, *args, **kwargs)

    return act


class OptunaStudy:
    """What OptunaStore.open gives. Belongs to the thread and the process that opened it."""

    def __init__(
        self,
        spec: StudySpec,
        study: optuna.Study,
        trials: Trials,
        error_boundary: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._spec = spec
        self._study = study
        self._trials = trials
        self._error_boundary = error_boundary
        self._space = distributions(spec.search_space)
        self._usable: set[int] = set()
        self._grid = Grid(spec.search_space, **spec.sampler.options) if spec.sampler.name == "grid" else None

    @property
    def optuna_study(self) -> optuna.Study:
        """Optuna's own study, for callbacks and plots."""
        return self._study

    @_acting
    def choose(self, *, ordinal: int, waiting: Waiting | None, before: LostAttempt | None = None) -> NewTrial:
        """The point of a ticket's next attempt, before anything of it is written. Raises SpaceExhausted.

        That of the attempt `before`; else a person's, the enqueued trial `waiting` (the sampler chooses what it leaves
        open); else the sampler's. A grid's own ordinals keep their points; enqueued trials are served by those added
        beyond them. An enqueued trial that cannot be run is failed, with the reason, and the next one taken.
        """
        if before is not None:
            return self._repeated(ordinal, before)
        if self._grid is not None and ordinal < len(self._grid):
            waiting = None
        while waiting is not None:
            try:
                fixed = as_stored(self._space, waiting.fixed)
            except ValueError as error:
                self._fail_waiting(waiting, error)
                waiting = self._trials.waiting()
                continue
            return self._new(self._sampled(ordinal, fixed), waiting_trial_id=waiting.trial_id)
        return self._new(self._grid.point(ordinal) if self._grid is not None else self._sampled(ordinal, {}))

    @_acting
    def start_trial(
        self, *, ordinal: int, before: LostAttempt | None = None, system_attrs: Mapping[str, Any] | None = None
    ) -> StartedTrial:
        """A RUNNING trial without a ticket, at the point that `choose` gives."""
        while True:
            new = self.choose(ordinal=ordinal, waiting=self._trials.waiting(), before=before)
            started = self._trials.start(replace(new, system_attrs={**new.system_attrs, **(system_attrs or {})}))
            if started is not None:
                return started

    @_acting
    def enqueue(self, params: Params) -> None:
        """A point that the next trial starts with; the sampler chooses what it leaves open.

        Raises InvalidInput for names and values that the search space does not have.
        """
        problems = [*_misfits(self._space, params)]
        if problems:
            raise InvalidInput("params", problems)
        self._study.enqueue_trial(as_stored(self._space, params))

    @_acting
    def report(self, trial_id: int, report: Report) -> None:
        """Records an intermediate value; the first one of a step stays. Nothing happens to a trial that has ended."""
        self._trials.add_reports(trial_id, [report])

    @_acting
    def report_many(self, trial_id: int, reports: Sequence[Report]) -> None:
        """As `report`, all of them in one transaction."""
        self._trials.add_reports(trial_id, reports)

    @_acting
    def load_history(self) -> None:
        """Reads all trials into this process's cache, so that the next decision reads only what is new."""
        self._study.get_trials(deepcopy=False)

    @_acting
    def should_prune(self, trial_id: int) -> bool:
        """Whether the study's pruner would end this trial now, by the reports it has; False once it has ended."""
        if isinstance(self._study.pruner, NopPruner):
            return False
        now = snapshot_of(self._study)
        latest_first = reversed(now.get_trials(deepcopy=False))
        trial = next((trial for trial in latest_first if trial._trial_id == trial_id), None)
        if trial is None or trial.state.is_finished():
            return False
        # Optuna's percentile pruners answer with NumPy's bool, which is no bool to JSON.
        return bool(now.pruner.prune(now, trial))

    @_acting
    def finish_trial(self, trial_id: int, outcome: Outcome) -> bool:
        """Ends a trial without a ticket. False when somebody had failed it before: then it stays so.

        Repeating the same changes nothing; another outcome raises InvariantBroken.
        """
        result = trial_result(outcome)
        earlier = self._trials.finish(trial_id, result)
        if earlier is None or earlier.agrees(result):
            return True
        if earlier.state is TrialState.FAIL:
            event(
                logger,
                "outcome_refused",
                level=logging.WARNING,
                study=self._spec.name,
                trial_id=trial_id,
                ending=outcome.ending,
            )
            return False
        raise InvariantBroken(
            f"trial id {trial_id} of study {self._spec.name} ended as {earlier.state} with {earlier.value}, "
            f"and now as {result.state} with {result.value}"
        )

    @_acting
    def trials(self, states: Collection[TrialState] | None = None) -> list[Trial]:
        """All trials, or those in some states, by number."""
        wanted = None if states is None else tuple(optuna.trial.TrialState[state] for state in states)
        return [trial_of(frozen) for frozen in self._study.get_trials(deepcopy=False, states=wanted)]

    @_acting
    def trial(self, number: int) -> Trial:
        """One trial. Raises UserInputError when the study has none of that number."""
        found = self._found(number)
        if found is None:
            raise UserInputError(f"study {self._spec.name} has no trial {number}")
        return trial_of(found)

    @_acting
    def running_with(self, attribute: str) -> list[tuple[int, int, Mapping[str, Any]]]:
        """The RUNNING trials that have this system attribute: id, number, and its value."""
        running = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        found = [(trial, trial.system_attrs.get(attribute)) for trial in running]
        return [(trial._trial_id, trial.number, value) for trial, value in found if isinstance(value, Mapping)]

    @_acting
    def ended(self) -> list[FrozenTrial]:
        """Optuna's own trials that have ended, by number, for callbacks: not to be changed."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    @_acting
    def best_trial(self) -> Trial | None:
        """The best COMPLETE trial that fitted into memory; None while there is none."""
        try:
            return trial_of(self._study.best_trial)
        except ValueError:
            return None

    @_acting
    def dataframe(self, *args: Any, **options: Any) -> Any:
        """The trials as Optuna's pandas.DataFrame, with Optuna's arguments. Raises MissingExtra."""
        if find_spec("pandas") is None:
            raise MissingExtra("a data frame needs pandas, which is not installed: pip install pandas", name="pandas")
        return self._study.trials_dataframe(*args, **options)

    @_acting
    def param_importance(self) -> dict[str, float]:
        """Shares that add up to 1, largest first (PED-ANOVA). Optuna warns below 2 COMPLETE trials; without any, {}."""
        return optuna.importance.get_param_importances(self._study)

    def _repeated(self, ordinal: int, before: LostAttempt) -> NewTrial:
        """The same point, marked as the retry of that trial, if it is there."""
        point = self._sampled(ordinal, as_stored(self._space, before.params))
        failed = self._found(before.trial_number)
        attrs = {} if failed is None else inherited_by_retry(failed)
        return self._new(Sampled(params=point.params, system_attrs={**point.system_attrs, **attrs}))

    def _sampled(self, ordinal: int, fixed: Params) -> Sampled:
        seed = seed_of(self._spec.seed, ordinal)
        return sample(self._study, self._space, seed=seed, fixed=fixed, usable=self._usable)

    def _new(self, point: Sampled, waiting_trial_id: int | None = None) -> NewTrial:
        return NewTrial(
            params=point.params,
            distributions=self._space,
            system_attrs=point.system_attrs,
            waiting_trial_id=waiting_trial_id,
        )

    def _fail_waiting(self, waiting: Waiting, reason: ValueError) -> None:
        self._trials.finish(waiting.trial_id, failure(str(reason)))
        event(
            logger,
            "enqueued_unfit",
            level=logging.WARNING,
            study=self._spec.name,
            trial=waiting.number,
            reason=reason,
        )

    def _found(self, number: int) -> FrozenTrial | None:
        storage = self._study._storage
        try:
            return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number))
        except KeyError:
            return None


def _misfits(space: Distributions, params: Params) -> Iterator[Problem]:
    """Names that the space does not have, and values outside their domain."""
    for name, value in params.items():
        domain = space.get(name)
        if domain is None:
            yield Problem(key=name, message="is no parameter of this study", hint=nearest(name, space))
            continue
        try:
            inside = domain._contains(domain.to_internal_repr(value))
        except (ValueError, TypeError):
            inside = False
        if not inside:
            yield Problem(key=name, message=f"is outside of {domain}", value=value)
