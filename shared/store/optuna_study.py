"""One study: ask it for trials, report to it, tell it how they ended, read it.

Decides; writing is left to `Trials`, proposing to `shared.samplers`. While the database is away every method raises
ServiceUnavailable and may simply be called again: reports and endings are idempotent, and a trial that an interrupted
`ask` left behind carries its Owner.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

import optuna
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial

from highnoon.shared.domain.errors import InvalidInput, InvariantBroken, Problem, UserInputError, nearest
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Params, Report, Trial
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.grid_points import Grid
from highnoon.shared.search.presampling import Sampled, as_stored, sample, seed_of, snapshot_of
from highnoon.shared.search.samplers import Distributions, distributions
from highnoon.shared.store.optuna_trials import Asked, Birth, OwnedTrial, Owner, Trials, Waiting
from highnoon.shared.store.reading import inherited_by_retry, trial_of
from highnoon.shared.store.trial_results import agrees, failure, verdict_of

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class UnfitWaiting(Exception):
    """A person enqueued a point that the search space does not have: it ends that trial, never the ask."""

    def __init__(self, waiting: Waiting, reason: str) -> None:
        super().__init__(reason)
        self.trial_id = waiting.trial_id
        self.number = waiting.number


def _acting(method: Callable[Concatenate[OptunaStudy, P], R]) -> Callable[Concatenate[OptunaStudy, P], R]:
    @wraps(method)
    def act(self: OptunaStudy, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._border():
            return method(self, *args, **kwargs)

    return act


class OptunaStudy:
    """What OptunaStore.open gives. Belongs to the thread and the process that opened it."""

    def __init__(
        self, spec: StudySpec, study: optuna.Study, trials: Trials, border: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._spec = spec
        self._study = study
        self._trials = trials
        self._border = border
        self._space = distributions(spec.search_space)
        self._grid = Grid(spec.search_space, **spec.sampler.options) if spec.sampler.name == "grid" else None

    @property
    def optuna_study(self) -> optuna.Study:
        """Optuna's own study, for callbacks and plots."""
        return self._study

    @_acting
    def ask(self, *, ordinal: int, owner: Owner | None) -> Asked:
        """A RUNNING trial: one that a person enqueued, else a new one. Raises SpaceExhausted beyond a grid's end.

        A grid's own tickets keep their points; enqueued trials are served by those added beyond them.
        """
        if self._grid is None or ordinal >= len(self._grid):
            waiting = self._start_waiting(ordinal, owner)
            if waiting is not None:
                return waiting
        return self._create(self._next_point(ordinal), owner)

    @_acting
    def ask_again(self, *, params: Params, owner: Owner | None, failed_trial: int | None) -> Asked:
        """A new RUNNING trial at the same point, marked as the retry of trial number `failed_trial`, if that exists."""
        known = as_stored(self._space, params)
        failed = None if failed_trial is None else self._found(failed_trial)
        attrs = {} if failed is None else inherited_by_retry(failed)
        return self._create(Sampled(params=known, system_attrs=attrs), owner)

    @_acting
    def enqueue(self, params: Params) -> None:
        """A point that the next ask starts with; the sampler chooses what it leaves open.

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
    def tell(self, trial_id: int, outcome: Outcome) -> bool:
        """Ends a trial. False when it had been failed before, as an orphan: then it stays so and a score is lost.

        Telling the same again changes nothing; another outcome raises InvariantBroken.
        """
        verdict = verdict_of(outcome)
        standing = self._trials.finish(trial_id, verdict)
        if standing is None or agrees(standing, verdict):
            return True
        if standing.state is optuna.trial.TrialState.FAIL:
            event(
                logger,
                "tell_refused",
                level=logging.WARNING,
                study=self._spec.name,
                trial_id=trial_id,
                ending=outcome.ending,
            )
            return False
        raise InvariantBroken(
            f"trial id {trial_id} of study {self._spec.name} was told as {standing.state.name} with {standing.value}, "
            f"and now as {verdict.state.name} with {verdict.value}"
        )

    @_acting
    def fail(self, trial_id: int, reason: str) -> bool:
        """Ends a trial as FAIL, with the reason as its cause. False when it had ended before."""
        return self._trials.finish(trial_id, failure(reason)) is None

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
    def param_importance(self) -> dict[str, float]:
        """Shares that add up to 1, largest first (PED-ANOVA). Optuna warns below 2 COMPLETE trials; without any, {}."""
        return optuna.importance.get_param_importances(self._study)

    @_acting
    def owned_running(self) -> list[OwnedTrial]:
        """RUNNING trials that carry an Owner: one statement, whatever the size of the study."""
        return self._trials.owned_running()

    def _next_point(self, ordinal: int) -> Sampled:
        return self._grid.point(ordinal) if self._grid is not None else self._sampled(ordinal, {})

    def _sampled(self, ordinal: int, fixed: Params) -> Sampled:
        return sample(self._study, self._space, seed=seed_of(self._spec.seed, ordinal), fixed=fixed)

    def _create(self, point: Sampled, owner: Owner | None) -> Asked:
        return self._trials.create(self._birth(point, owner))

    def _start_waiting(self, ordinal: int, owner: Owner | None) -> Asked | None:
        """The oldest enqueued trial that can be run; those before it that cannot are failed, with the reason."""
        while True:
            try:
                return self._trials.start_waiting(partial(self._completed, ordinal=ordinal, owner=owner))
            except UnfitWaiting as unfit:
                self._trials.finish(unfit.trial_id, failure(str(unfit)))
                event(
                    logger,
                    "enqueued_unfit",
                    level=logging.WARNING,
                    study=self._spec.name,
                    trial=unfit.number,
                    reason=unfit,
                )

    def _completed(self, waiting: Waiting, *, ordinal: int, owner: Owner | None) -> Birth:
        """What a person fixed, and the sampler's choice for the rest."""
        try:
            fixed = as_stored(self._space, waiting.fixed)
        except ValueError as error:
            raise UnfitWaiting(waiting, str(error)) from None
        return self._birth(self._sampled(ordinal, fixed), owner)

    def _birth(self, point: Sampled, owner: Owner | None) -> Birth:
        return Birth(
            params=point.params,
            distributions=self._space,
            user_attrs={} if owner is None else owner.attrs,
            system_attrs=point.system_attrs,
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
