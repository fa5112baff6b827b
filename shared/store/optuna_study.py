"""One study: choose points, start trials, report to them, finish them, read them.

Choosing is left to `PointChooser`, pruning to `PruningDecisions`, writing to `Trials`, reading to `StudyReader`. While
the database is away every method raises ServiceUnavailable and may be called again: reports and endings are idempotent.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.errors import InvariantBroken
from highnoon.shared.domain.extension import EXTENDS, EXTENSION, Extension
from highnoon.shared.domain.lease import EnqueuedTrial, LostAttempt
from highnoon.shared.domain.metric_history import METRIC_HISTORY, history_text
from highnoon.shared.domain.note import Note, NoteChange
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Params, Report
from highnoon.shared.domain.trial_environment import ENVIRONMENT
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.plugged import PluggedPruner, PluggedSampler, PluginProcess
from highnoon.shared.search.presampling import seed_of
from highnoon.shared.search.pruning import PrunerView
from highnoon.shared.search.sampling_space import SamplingSpace
from highnoon.shared.search.suggester import Suggester
from highnoon.shared.store.enqueued_points import checked_point
from highnoon.shared.store.optuna_trials import (
    FreeOrdinal,
    NewTrial,
    OrdinalSource,
    StartedTrial,
    Trials,
    stored_values,
)
from highnoon.shared.store.point_choice import PointChooser, ReadCheckpoints
from highnoon.shared.store.pruning_decisions import PruningDecisions
from highnoon.shared.store.study_notes import StudyNotes
from highnoon.shared.store.study_reader import StudyReader, in_error_boundary
from highnoon.shared.store.trial_definition import TrialDefinition, Write
from highnoon.shared.store.trial_results import TrialResult, trial_result

logger = logging.getLogger(__name__)


class OptunaStudy(StudyReader):
    """What OptunaStore.open gives. Belongs to the thread and the process that opened it."""

    def __init__(
        self,
        spec: StudySpec,
        study: optuna.Study,
        trials: Trials,
        error_boundary: Callable[[], AbstractContextManager[None]],
        warm_start: Sequence[FrozenTrial] = (),
        *,
        has_given_sampler: bool = False,
    ) -> None:
        """`has_given_sampler`: its sampler is an object that `OptunaStore.open` was given."""
        super().__init__(spec, study, trials, error_boundary)
        self._has_given_sampler = has_given_sampler
        self._seeds_itself = has_given_sampler and spec.seed is None
        self.sampler_fault: Exception | None = None
        """What a given sampler has raised after a trial."""
        self._informed: set[int] = set()
        self.is_stopped_by_sampler = False
        """Whether it has called `study.stop()`."""
        self._space = SamplingSpace(spec.search_space, spec.point_constraints)
        self._points = PointChooser(spec, study, trials, self._space, warm_start, seeds_itself=self._seeds_itself)
        self._pruning = PruningDecisions(spec, study, trials)

    def allow_plugins(self, folder: Path | None) -> None:
        """Starts its own sampler and pruner, unless they run, from the code in this folder. Raises PluginFailed."""
        for process in self._plugins():
            process.allow(folder)
            process.begin(self._study)

    def plugin_fault(self) -> str | None:
        """What was wrong with its own sampler or pruner since this was last asked."""
        return "; ".join(fault for process in self._plugins() if (fault := process.take_fault())) or None

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

    @in_error_boundary
    def choose(
        self,
        *,
        ordinal: int,
        waiting: EnqueuedTrial | None,
        before: LostAttempt | None = None,
        kept: ReadCheckpoints = None,
    ) -> NewTrial:
        """The point of a ticket's next attempt, before anything of it is written. Raises SpaceExhausted.

        The point of the attempt `before`; else a person's, the enqueued trial `waiting` (the sampler chooses what it
        leaves open); else the sampler's. A grid's own ordinals keep their points; enqueued trials get the ordinals
        beyond them. An enqueued trial that cannot be run is failed, with the reason, and the next one taken.

        A population goes on from the checkpoints that are `kept`, which no other study asks for.
        A study without a search space has no point yet, only what is fixed: see `definition`.
        """
        return self._points.choose(ordinal=ordinal, waiting=waiting, before=before, kept=kept)

    @in_error_boundary
    def definition(
        self, *, trial_id: int, number: int, ordinal: int, fixed: Params, write: Write | None = None
    ) -> TrialDefinition:
        """What answers a started trial that defines its space as it runs; `fixed` are the parameters of its start.

        `write` adds to the trial, by default without a lease.
        """
        suggester = Suggester(
            self._study,
            trial_id=trial_id,
            number=number,
            seed=None if self._seeds_itself else seed_of(self._spec.seed, ordinal),
            fixed=fixed,
        )
        return TrialDefinition(suggester, write or (lambda new: self._add(trial_id, new)))

    @in_error_boundary
    def start_trial(
        self,
        *,
        ordinal: int | OrdinalSource,
        before: LostAttempt | None = None,
        kept: ReadCheckpoints = None,
        system_attrs: Mapping[str, Any] = MappingProxyType({}),
        user_attrs: Mapping[str, Any] = MappingProxyType({}),
    ) -> StartedTrial:
        """A RUNNING trial without a ticket, at the point that `choose` gives.

        The point is chosen again, with a new ordinal, where the chosen one may no longer be used.
        """
        tries = 0
        while True:
            free = FreeOrdinal(ordinal=ordinal) if isinstance(ordinal, int) else ordinal(tries)
            waiting = self._trials.waiting()
            if waiting is not None and waiting.extension is not None:
                waiting = None  # only a worker can fetch the checkpoint that it goes on from
            new = self.choose(ordinal=free.ordinal, waiting=waiting, before=before, kept=kept)
            new = replace(new, begun=free.begun, system_attrs={**new.system_attrs, **system_attrs})
            started = self._trials.start(replace(new, user_attrs={**new.user_attrs, **user_attrs}))
            if started is not None:
                return replace(started, ordinal=free.ordinal, extends=new.user_attrs.get(EXTENDS))
            tries += 1

    @in_error_boundary
    def enqueue(self, params: Params) -> None:
        """A point that the next trial starts with; the sampler chooses what it leaves open.

        Values of parameters that the others make inactive are left out. Raises InvalidInput for names and values that
        the search space does not have, and for a point that breaks a constraint.
        """
        self._study.enqueue_trial(checked_point(self._spec, self._space, params))

    def check_point(self, params: Params) -> None:
        """Raises InvalidInput for a point that `enqueue` would refuse; stores nothing."""
        checked_point(self._spec, self._space, params)

    @in_error_boundary
    def enqueue_extension(self, params: Params, extension: Extension) -> None:
        """As `enqueue`, for a trial that goes on from a checkpoint."""
        waiting = optuna.trial.create_trial(
            state=optuna.trial.TrialState.WAITING,
            system_attrs={
                "fixed_params": checked_point(self._spec, self._space, params),
                EXTENSION: extension.to_json(),
            },
            user_attrs={EXTENDS: extension.of},
        )
        self._study.add_trial(waiting)

    @in_error_boundary
    def report_many(self, trial_id: int, reports: Sequence[Report]) -> None:
        """Records intermediate values, all of them in one transaction; the first one of a step stays. Nothing happens
        to a trial that has ended."""
        self._trials.add_reports(trial_id, reports)

    @property
    def prunes(self) -> bool:
        """Whether what a trial reports may end it."""
        return self._pruning.are_possible

    @in_error_boundary
    def pruner_view(self, trial_id: int) -> PrunerView:
        """The study as it is now, for decisions on this running trial, which need no database."""
        return self._pruning.view(trial_id)

    @in_error_boundary
    def should_prune(self, trial_id: int) -> bool:
        """Whether the study's pruner would end this trial now, by the reports it has; False once it has ended."""
        return self._pruning.should_prune(trial_id)

    @in_error_boundary
    def inform_sampler(self, trial_id: int, outcome: Outcome) -> Outcome:
        """Gives a trial that is about to be finished to a given sampler, as Optuna does: it may store constraints.

        Returns the outcome with these, for limits. What the sampler raises is kept in `sampler_fault`: the trial is to
        be finished all the same. Repeating it gives the trial to the sampler once.
        """
        trial = self._running(trial_id) if self._has_given_sampler else None
        if trial is None:
            return outcome
        if trial_id not in self._informed:
            self._give_to_sampler(trial, outcome)
            self._informed.add(trial_id)
        constraints = self._study._storage.get_trial(trial_id).constraints
        return replace(outcome, misses={**constraints, **outcome.misses})

    def _give_to_sampler(self, trial: FrozenTrial, outcome: Outcome) -> None:
        result = self._result(outcome)
        ended = copy.deepcopy(trial)
        ended.user_attrs.update(result.user_attrs)
        ended.system_attrs.update(result.system_attrs)
        view = copy.copy(self._study)
        view._thread_local.in_optimize_loop, view._stop_flag = True, False  # it may call study.stop()
        try:
            state = optuna.trial.TrialState[result.state]
            view.sampler.after_trial(view, ended, state, stored_values(trial, result))
        except (SQLAlchemyError, StorageInternalError):
            raise
        except UpdateFinishedTrialError:
            pass  # another program has ended it meanwhile
        except Exception as error:
            self.sampler_fault = error
        self.is_stopped_by_sampler |= view._stop_flag

    @in_error_boundary
    def finish_trial(self, trial_id: int, outcome: Outcome) -> bool:
        """Ends a trial without a ticket. False when another program had failed it before: then it stays so.

        Repeating the same changes nothing; another outcome raises InvariantBroken.
        """
        result = self._result(outcome)
        if outcome.metric_history:
            kept = {METRIC_HISTORY: history_text(outcome.metric_history)}
            result = replace(result, system_attrs={**result.system_attrs, **kept})
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

    @in_error_boundary
    def keep_environment(self, digest: str, content: Mapping[str, Any]) -> None:
        """Keeps what trials name by the digest."""
        self._trials.keep_study_attr(f"{ENVIRONMENT}:{digest}", dict(content))

    @in_error_boundary
    def annotate(self, number: int | None, change: NoteChange, *, seen: str | None = None) -> Note:
        """Changes the note of the study or of a trial; returns it afterwards. Raises UserInputError.

        With `seen`, the version that the change was made for, raises StudyConflict where it is another one by now.
        """
        return StudyNotes(self._study._storage, self._study._study_id).change(number, change, seen=seen)

    @in_error_boundary
    def remove_artifacts(self, artifacts: Collection[Artifact]) -> None:
        """Takes them out of their trials, once their files are gone."""
        self._trials.remove_artifacts(artifacts)
        for trial in self._study.get_trials(deepcopy=False):  # ended trials stay in Optuna's cache for ever
            for artifact in artifacts:
                trial.system_attrs.pop(artifact.attr[0], None)

    def _running(self, trial_id: int) -> FrozenTrial | None:
        try:
            trial = self._study._storage.get_trial(trial_id)
        except KeyError:  # the study was deleted
            return None
        return trial if trial.state is optuna.trial.TrialState.RUNNING else None

    def _result(self, outcome: Outcome) -> TrialResult:
        return trial_result(outcome, has_goals=bool(self._spec.objectives))

    @in_error_boundary
    def _add(self, trial_id: int, new: NewTrial) -> None:
        self._trials.add(trial_id, new)
