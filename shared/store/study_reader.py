"""One study of ours as its trials stand: all of them, the best, their artifacts. Writes nothing.

Reads trials through Optuna's cache in this process. While the database is away every method raises ServiceUnavailable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from importlib.util import find_spec
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.trial import FrozenTrial

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.errors import InvalidObjectiveResult, MissingExtra, MissingParamCount, UserInputError
from highnoon.shared.domain.extension import Extension
from highnoon.shared.domain.metric_history import Curves, curves_in
from highnoon.shared.domain.note import Notes
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import REPEATS_WORST, Trial
from highnoon.shared.search.population import Population
from highnoon.shared.search.ranking import best_numbers
from highnoon.shared.search.sampling_space import SamplingSpace
from highnoon.shared.store.optuna_trials import Trials, extension_in, find_trial, trial_of
from highnoon.shared.store.study_notes import StudyNotes
from highnoon.shared.store.study_view import best_trials, importances

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="StudyReader")


def in_error_boundary(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """The method, raising our own errors only (`OptunaStore`)."""

    @wraps(method)
    def act(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._error_boundary():
            return method(self, *args, **kwargs)

    return act


class StudyReader:
    """The reading half of OptunaStudy. Belongs to the thread and the process that opened it."""

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

    @property
    def optuna_study(self) -> optuna.Study:
        """Optuna's own study, for callbacks and plots."""
        return self._study

    @in_error_boundary
    def load_history(self) -> None:
        """Reads all trials into this process's cache, so that the next decision reads only what is new."""
        self._study.get_trials(deepcopy=False)

    @in_error_boundary
    def trials(self, states: Collection[TrialState] | None = None) -> list[Trial]:
        """All trials, or those in some states, by number."""
        wanted = None if states is None else tuple(optuna.trial.TrialState[state] for state in states)
        return [trial_of(frozen) for frozen in self._study.get_trials(deepcopy=False, states=wanted)]

    @in_error_boundary
    def metric_history(self, number: int) -> Curves:
        """The curves of a trial without a ticket; {} without any. Raises UserInputError for no trial of the study."""
        if find_trial(self._study, number) is None:
            raise UserInputError(f"study {self._spec.name} has no trial {number!r}")
        return curves_in(self._trials.metric_history(number))

    @in_error_boundary
    def trial(self, number: int) -> Trial:
        """One trial. Raises UserInputError when the study has none of that number."""
        found = find_trial(self._study, number)
        if found is None:
            raise UserInputError(f"study {self._spec.name} has no trial {number}")
        return trial_of(found)

    @in_error_boundary
    def notes(self) -> Notes:
        """What people wrote beside it and its trials."""
        return StudyNotes(self._study._storage, self._study._study_id).read()

    @in_error_boundary
    def extension(self, number: int) -> Extension | None:
        """What a trial goes on from; None for one that begins at its beginning."""
        found = find_trial(self._study, number)
        return None if found is None else extension_in(found)

    @in_error_boundary
    def running_with(self, attribute: str) -> list[tuple[int, int, Mapping[str, Any]]]:
        """The RUNNING trials that have this system attribute: id, number, and its value."""
        running = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        found = [(trial, trial.system_attrs.get(attribute)) for trial in running]
        return [(trial._trial_id, trial.number, value) for trial, value in found if isinstance(value, Mapping)]

    @in_error_boundary
    def ended(self) -> list[FrozenTrial]:
        """Optuna's own trials that have ended, by number, for callbacks: not to be changed."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    @in_error_boundary
    def best_trial(self) -> Trial | None:
        """The best COMPLETE trial that is feasible; None while there is none. Raises UserInputError: several are."""
        if self._spec.objectives:
            raise UserInputError(
                f"study {self._spec.name!r} has several objectives, and no single best trial: use best_trials"
            )
        try:
            return trial_of(self._study.best_trial)
        except ValueError:
            return None

    def repeat_bar(self) -> float | None:
        """The score beyond which the first repeat of a point is its last: the worst repeat of the best trial."""
        if self._spec.repeats == 1 or self._spec.pruner.name == "none":
            return None
        best = self.best_trial()
        worst = None if best is None else best.metrics.get(REPEATS_WORST)
        try:
            return None if best is None or worst is None else self._spec.scoring.score(worst, best.params_count)
        except (InvalidObjectiveResult, MissingParamCount):  # of another program
            return None

    @in_error_boundary
    def best_trials(self) -> list[Trial]:
        """The feasible COMPLETE trials that none beats in all objectives; of one objective the best. [] without any."""
        return best_trials(self._study)

    @in_error_boundary
    def artifacts(self) -> dict[int, list[Artifact]]:
        """The artifacts of each trial that has some, by its number, as they are now."""
        return self._trials.artifacts()

    @in_error_boundary
    def artifacts_beyond_best(self, count: int) -> list[Artifact]:
        """The artifacts of trials that are over and not among the `count` best."""
        kept = self._trials.artifacts()
        if not kept:
            return []
        trials = self._study.get_trials(deepcopy=False)
        best = best_numbers(trials, self._study.directions, count)
        over = {trial.number for trial in trials if trial.state.is_finished()} - best
        return [one for number, found in kept.items() if number in over for one in found]

    @in_error_boundary
    def worth_extending(self, numbers: Collection[int], count: int) -> set[int]:
        """The `count` best of these trials; completed ones before the others, of those the newest."""
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.number in numbers]
        best = best_numbers(trials, self._study.directions, count)
        others = sorted({trial.number for trial in trials} - best, reverse=True)
        return best | set(others[: count - len(best)])

    @in_error_boundary
    def checkpoints_needed(self, among: Collection[int] | None = None) -> set[int]:
        """The numbers of trials from whose checkpoints the next ones may go on: of a population, or of these alone."""
        if not self._spec.sampler.goes_on_from_checkpoints:
            return set()
        population = Population(self._spec, SamplingSpace(self._spec.search_space, self._spec.point_constraints))
        trials = self._study.get_trials(deepcopy=False)
        return population.needed(trial for trial in trials if among is None or trial.number in among)

    @in_error_boundary
    def dataframe(self, *args: Any, **options: Any) -> Any:
        """The trials as Optuna's pandas.DataFrame, with Optuna's arguments. Raises MissingExtra."""
        if find_spec("pandas") is None:
            raise MissingExtra("a data frame needs pandas, which is not installed: pip install pandas", name="pandas")
        return self._study.trials_dataframe(*args, **options)

    @in_error_boundary
    def param_importance(self) -> dict[str, float]:
        """Shares that add up to 1, largest first (PED-ANOVA); {} without COMPLETE trials.

        Logs one warning where they say nothing, since all are equal.
        """
        shares, are_equal = importances(self._study)
        if are_equal:
            logger.warning(
                "study %s: too few different values to say which parameter mattered: all shares are equal",
                self._spec.name,
            )
        return shares
