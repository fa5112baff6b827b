"""One study: choose points, start trials, report to them, finish them, read them.

Decides; writing is left to `Trials`, proposing to `shared.search`. While the database is away every method raises
ServiceUnavailable and may be called again: reports and endings are idempotent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.errors import (
    InvalidInput,
    InvalidObjectiveResult,
    InvariantBroken,
    MissingExtra,
    MissingParamCount,
    Problem,
    SpaceExhausted,
    UserInputError,
    nearest,
)
from highnoon.shared.domain.extension import EXTENDS, EXTENSION, Extension
from highnoon.shared.domain.lease import LostAttempt, Waiting
from highnoon.shared.domain.note import Note, NoteChange, Notes
from highnoon.shared.domain.scalars import Mistake, choice
from highnoon.shared.domain.space import SearchSpace, written_form
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import REPEATS_WORST, Outcome, Params, Report, Trial
from highnoon.shared.domain.trial_environment import ENVIRONMENT
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.grid_points import Grid
from highnoon.shared.search.history_snapshot import snapshot_of
from highnoon.shared.search.known_trials import KnownTrials
from highnoon.shared.search.plugged import PluggedPruner, PluggedSampler, PluginProcess
from highnoon.shared.search.presampling import Sampled, earlier_trials, sample, seed_of
from highnoon.shared.search.pruning import PrunerView
from highnoon.shared.search.ranking import best_numbers
from highnoon.shared.search.samplers import build_pruner, depends_on_steps
from highnoon.shared.search.sampling_space import SamplingSpace
from highnoon.shared.search.suggester import Suggester
from highnoon.shared.store.optuna_trials import (
    NewTrial,
    StartedTrial,
    Trials,
    inherited_by_retry,
    trial_of,
)
from highnoon.shared.store.study_notes import StudyNotes
from highnoon.shared.store.study_view import best_trials, importances
from highnoon.shared.store.trial_definition import TrialDefinition, Write
from highnoon.shared.store.trial_results import failure, trial_result

logger = logging.getLogger(__name__)

STEPS = "highnoon:steps"
"""Study attribute: how many steps a whole trial has, for pruners whose rungs follow from it. Written once."""

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
        warm_start: Sequence[FrozenTrial] = (),
        *,
        seeds_itself: bool = False,
    ) -> None:
        self._seeds_itself = seeds_itself
        self._spec = spec
        self._study = study
        self._trials = trials
        self._error_boundary = error_boundary
        self._space = SamplingSpace(spec.search_space, spec.point_constraints)
        self._known = KnownTrials(self._space, earlier_trials(self._space, warm_start))
        self._knows_steps = not depends_on_steps(spec.pruner)
        self._grid = Grid.of(spec)

    @property
    def optuna_study(self) -> optuna.Study:
        """Optuna's own study, for callbacks and plots."""
        return self._study

    def allow_plugins(self, folder: Path | None) -> None:
        """Starts its own sampler and pruner, unless they run, from the code in this folder. Raises PluginFailed."""
        for process in self._plugins():
            process.allow(folder)
            process.begin(self._study)

    def plugin_fault(self) -> str | None:
        """What is wrong with its own sampler or pruner, by the last question to each."""
        return "; ".join(process.fault for process in self._plugins() if process.fault) or None

    def close_plugins(self, *, if_idle: bool = False) -> None:
        """Ends the processes of its own sampler and pruner; with `if_idle` those that nothing has asked for minutes."""
        for process in self._plugins():
            if if_idle:
                process.close_if_idle()
            else:
                process.close()

    def _plugins(self) -> list[PluginProcess]:
        used = (self._study.sampler, self._study.pruner)
        return [one.process for one in used if isinstance(one, PluggedSampler | PluggedPruner)]

    @_acting
    def choose(self, *, ordinal: int, waiting: Waiting | None, before: LostAttempt | None = None) -> NewTrial:
        """The point of a ticket's next attempt, before anything of it is written. Raises SpaceExhausted.

        The point of the attempt `before`; else a person's, the enqueued trial `waiting` (the sampler chooses what it
        leaves open); else the sampler's. A grid's own ordinals keep their points; enqueued trials get the ordinals
        beyond them. An enqueued trial that cannot be run is failed, with the reason, and the next one taken.

        A study without a search space has no point yet, only what is fixed: see `definition`.
        """
        if self._spec.defines_by_run:
            return self._undefined(waiting, before)
        if before is not None:
            return self._repeated(ordinal, before)
        if self._grid is not None and ordinal < len(self._grid):
            waiting = None
        while waiting is not None:
            try:
                return self._new(self._around(ordinal, waiting.fixed), waiting)
            except (ValueError, SpaceExhausted) as error:
                self._fail_waiting(waiting, error)
                waiting = self._trials.waiting()
        return self._new(self._grid.point(ordinal) if self._grid is not None else self._sampled(ordinal, {}))

    @_acting
    def definition(
        self, *, trial_id: int, number: int, ordinal: int, fixed: Params, write: Write | None = None
    ) -> TrialDefinition:
        """What answers a started trial that defines its space as it runs; `fixed` are the parameters of its start.

        `write` adds to the trial, by default without a lease.
        """
        suggester = Suggester(
            self._study, trial_id=trial_id, number=number, seed=seed_of(self._spec.seed, ordinal), fixed=fixed
        )
        return TrialDefinition(suggester, write or (lambda new: self._add(trial_id, new)))

    @_acting
    def start_trial(
        self,
        *,
        ordinal: int,
        before: LostAttempt | None = None,
        system_attrs: Mapping[str, Any] = MappingProxyType({}),
        user_attrs: Mapping[str, Any] = MappingProxyType({}),
    ) -> StartedTrial:
        """A RUNNING trial without a ticket, at the point that `choose` gives."""
        while True:
            waiting = self._trials.waiting()
            if waiting is not None and waiting.extension is not None:
                waiting = None  # only a worker can fetch the checkpoint that it goes on from
            new = self.choose(ordinal=ordinal, waiting=waiting, before=before)
            new = replace(new, system_attrs={**new.system_attrs, **system_attrs})
            started = self._trials.start(replace(new, user_attrs={**new.user_attrs, **user_attrs}))
            if started is not None:
                return replace(started, ordinal=ordinal)

    @_acting
    def enqueue(self, params: Params) -> None:
        """A point that the next trial starts with; the sampler chooses what it leaves open.

        Values of parameters that the others make inactive are left out. Raises InvalidInput for names and values that
        the search space does not have, and for a point that breaks a constraint.
        """
        self._study.enqueue_trial(self._as_enqueued(params))

    @_acting
    def enqueue_extension(self, params: Params, extension: Extension) -> None:
        """As `enqueue`, for a trial that goes on from a checkpoint."""
        waiting = optuna.trial.create_trial(
            state=optuna.trial.TrialState.WAITING,
            system_attrs={"fixed_params": self._as_enqueued(params), EXTENSION: extension.to_json()},
            user_attrs={EXTENDS: extension.of},
        )
        self._study.add_trial(waiting)

    def _as_enqueued(self, params: Params) -> Params:
        if self._spec.defines_by_run:
            return _plain_point(params)
        problems = [*_misfits(self._space.domains, params, self._spec.search_space)]
        fixed = {} if problems else self._space.as_stored(params)
        for constraint in self._space.broken_by(fixed):
            problems.append(Problem(key="params", message=f"the point does not keep {constraint}", value=params))
        if problems:
            raise InvalidInput("params", problems)
        return fixed

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

    @property
    def prunes(self) -> bool:
        """Whether it has a pruner, and reports that this can use."""
        return self._spec.pruner.name != "none" and (not self._spec.objectives or self._spec.prune_on is not None)

    @_acting
    def pruner_view(self, trial_id: int) -> PrunerView:
        """The study as it is now, for decisions on this running trial, which need no database."""
        now = self._snapshot_for_pruner()
        return PrunerView(now, now.get_trials(deepcopy=False), trial_id)

    @_acting
    def should_prune(self, trial_id: int) -> bool:
        """Whether the study's pruner would end this trial now, by the reports it has; False once it has ended."""
        if not self.prunes:
            return False
        now = self._snapshot_for_pruner()
        if isinstance(now.pruner, NopPruner):
            return False
        latest_first = reversed(now.get_trials(deepcopy=False))
        trial = next((trial for trial in latest_first if trial._trial_id == trial_id), None)
        if trial is None or trial.state.is_finished():
            return False
        # Optuna's percentile pruners answer with NumPy's bool, which is no bool to JSON.
        return bool(now.pruner.prune(now, trial))

    @_acting
    def finish_trial(self, trial_id: int, outcome: Outcome) -> bool:
        """Ends a trial without a ticket. False when another program had failed it before: then it stays so.

        Repeating the same changes nothing; another outcome raises InvariantBroken.
        """
        result = trial_result(outcome, has_goals=bool(self._spec.objectives))
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
            f"trial id {trial_id} of study {self._spec.name} ended as {earlier.state} with {earlier.values}, "
            f"and now as {result.state} with {result.values or result.value}"
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
    def keep_environment(self, digest: str, content: Mapping[str, Any]) -> None:
        """Keeps what trials name by the digest."""
        self._trials.keep_study_attr(f"{ENVIRONMENT}:{digest}", dict(content))

    @_acting
    def notes(self) -> Notes:
        """What people wrote beside it and its trials."""
        return StudyNotes(self._study._storage, self._study._study_id).read()

    @_acting
    def annotate(self, number: int | None, change: NoteChange) -> Note:
        """Changes the note of the study or of a trial; returns it afterwards. Raises UserInputError."""
        return StudyNotes(self._study._storage, self._study._study_id).change(number, change)

    @_acting
    def extension(self, number: int) -> Extension | None:
        """What a trial goes on from; None for one that begins at its beginning."""
        found = self._found(number)
        written = None if found is None else found.system_attrs.get(EXTENSION)
        return None if written is None else Extension.from_json(written)

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

    @_acting
    def best_trials(self) -> list[Trial]:
        """The feasible COMPLETE trials that none beats in all objectives; of one objective the best. [] without any."""
        return best_trials(self._study)

    @_acting
    def artifacts(self) -> dict[int, list[Artifact]]:
        """The artifacts of each trial that has some, by its number, as they are now."""
        return self._trials.artifacts()

    @_acting
    def artifacts_beyond_best(self, count: int) -> list[Artifact]:
        """The artifacts of trials that are over and not among the `count` best."""
        kept = self._trials.artifacts()
        if not kept:
            return []
        trials = self._study.get_trials(deepcopy=False)
        best = best_numbers(trials, self._study.directions, count)
        over = {trial.number for trial in trials if trial.state.is_finished()} - best
        return [one for number, found in kept.items() if number in over for one in found]

    @_acting
    def worth_extending(self, numbers: Collection[int], count: int) -> set[int]:
        """The `count` best of these trials; completed ones before the others, of those the newest."""
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.number in numbers]
        best = best_numbers(trials, self._study.directions, count)
        others = sorted({trial.number for trial in trials} - best, reverse=True)
        return best | set(others[: count - len(best)])

    @_acting
    def remove_artifacts(self, artifacts: Collection[Artifact]) -> None:
        """Takes them out of their trials, once their files are gone."""
        self._trials.remove_artifacts(artifacts)
        for trial in self._study.get_trials(deepcopy=False):  # ended trials stay in Optuna's cache for ever
            for artifact in artifacts:
                trial.system_attrs.pop(artifact.attr[0], None)

    @_acting
    def dataframe(self, *args: Any, **options: Any) -> Any:
        """The trials as Optuna's pandas.DataFrame, with Optuna's arguments. Raises MissingExtra."""
        if find_spec("pandas") is None:
            raise MissingExtra("a data frame needs pandas, which is not installed: pip install pandas", name="pandas")
        return self._study.trials_dataframe(*args, **options)

    @_acting
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

    def _snapshot_for_pruner(self) -> optuna.Study:
        now = snapshot_of(self._study)
        if objectives := list(self._spec.objectives or ()):
            # Reports are of this one, and a pruner reads nothing else.
            now._directions = [now.directions[objectives.index(str(self._spec.prune_on))]]
        if not self._knows_steps:
            now.pruner = self._study.pruner = self._with_steps(now)
        return now

    def _with_steps(self, now: optuna.Study) -> BasePruner:
        """The study's pruner, once one trial has shown how many steps a whole one has: the same for every node."""
        ended = now.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        steps = [trial.last_step + 1 for trial in ended if trial.last_step is not None]
        if not steps:
            return self._study.pruner
        self._knows_steps = True
        return build_pruner(self._spec.pruner, self._trials.keep_study_attr(STEPS, max(1, *steps))) or NopPruner()

    def _repeated(self, ordinal: int, before: LostAttempt) -> NewTrial:
        """The same point, marked as the retry of that trial, if it is there."""
        point = self._sampled(ordinal, self._space.as_repeated(before.params))
        new = self._new(point)
        return replace(new, **self._inherited(before, point.system_attrs))

    def _inherited(self, before: LostAttempt, own: Mapping[str, Any]) -> dict[str, Any]:
        """What a retry has of the trial before it, if that is there."""
        failed = self._found(before.trial_number)
        if failed is None:
            return {"system_attrs": own}
        extends = {key: value for key, value in failed.user_attrs.items() if key == EXTENDS}
        return {
            "system_attrs": {**own, **inherited_by_retry(failed)},
            "user_attrs": extends,
            "extension": self.extension(before.trial_number),
        }

    def _undefined(self, waiting: Waiting | None, before: LostAttempt | None) -> NewTrial:
        if before is not None:
            return NewTrial(params=before.params, distributions={}, **self._inherited(before, {}))
        if waiting is not None:
            return NewTrial(
                params=dict(waiting.fixed),
                distributions={},
                waiting_trial_id=waiting.trial_id,
                extension=waiting.extension,
            )
        return NewTrial(params={}, distributions={})

    @_acting
    def _add(self, trial_id: int, new: NewTrial) -> None:
        self._trials.add(trial_id, new)

    def _around(self, ordinal: int, wanted: Mapping[str, Any]) -> Sampled:
        """What a person enqueued, completed by the sampler. Raises ValueError, SpaceExhausted: it cannot be run."""
        fixed = self._space.as_stored(wanted)
        broken = self._space.broken_by(fixed)
        if broken:
            raise ValueError(f"the point does not keep {' and '.join(broken)}")
        return self._sampled(ordinal, fixed)

    def _sampled(self, ordinal: int, fixed: Params) -> Sampled:
        seed = None if self._seeds_itself else seed_of(self._spec.seed, ordinal)
        return sample(self._study, self._space, seed=seed, fixed=fixed, ordinal=ordinal, known=self._known)

    def _new(self, point: Sampled, waiting: Waiting | None = None) -> NewTrial:
        return NewTrial(
            params=point.params,
            distributions=self._space.domains,
            system_attrs=point.system_attrs,
            waiting_trial_id=None if waiting is None else waiting.trial_id,
            extension=None if waiting is None else waiting.extension,
        )

    def _fail_waiting(self, waiting: Waiting, reason: Exception) -> None:
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


def _plain_point(params: Params) -> Params:
    """For an objective that suggests as it runs: any names. Raises InvalidInput for what no domain holds."""
    point: Params = {}
    problems = []
    for name, value in params.items():
        try:
            point[name] = choice(value)
        except Mistake as mistake:
            problems.append(Problem(key=name, message=mistake.message, value=value, hint=mistake.hint))
    if problems:
        raise InvalidInput("params", problems)
    return point


def _misfits(space: Mapping[str, BaseDistribution], params: Params, written: SearchSpace) -> Iterator[Problem]:
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
            shown = json.dumps(written_form(written[name]), ensure_ascii=False)
            yield Problem(key=name, message=f"is outside of {shown}", value=value)
