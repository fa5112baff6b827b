"""Runs trials on this machine for `HPOTrialManager`: sample, attempt, record, call back.

The same core as a worker's (`shared.objective.attempt`, `shared.store`), without a lease: a trial carries its owner
instead, and the next call on this host ends what a killed process or an interrupted call has left RUNNING. An outage
of the database ends nothing: the training goes on, and its result is recorded once the database is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from highnoon.local.checkpoints import LocalCheckpoints
from highnoon.local.environment import recorded_environment
from highnoon.local.files import LocalFiles, Place
from highnoon.local.ordinals import ordinal_source
from highnoon.local.owner import OWNER, active_call, is_gone, owner_of
from highnoon.local.process import Launcher
from highnoon.local.study_channel import StudyChannel
from highnoon.local.trial import (
    LocalTrial,
    attempt_here,
    channel_of,
    ended_by_sigterm,
    final_outcome,
    interrupted,
    recorded,
    task_of,
    wait_for_ended,
)
from highnoon.progress import ProgressView, log_trial, progress_view
from highnoon.shared.domain.errors import EveryTrialFailed, HighNoonError, SpaceExhausted
from highnoon.shared.domain.limits import RunLimits, failure_limit
from highnoon.shared.domain.states import OPTUNA_STATE, Cause, Ending, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.tracebacks import failure_groups
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.attempt import Objective
from highnoon.shared.objective.trial_task import TrialTask
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.callbacks import Callback, call_back
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import StartedTrial
from highnoon.shared.store.outages import retry_until_available

logger = logging.getLogger("highnoon")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How one call runs its trials. `isolation` is none, fork or spawn; more than one job needs one of the last two."""

    isolation: str = "none"
    n_jobs: int = 1
    show_progress: bool = True
    artifacts: Place | None = None
    """The place for files that trials save; None: nothing is stored."""


def run_trials(
    study: OptunaStudy, spec: StudySpec, objective: Objective, callbacks: Sequence[Callback], options: RunOptions
) -> str:
    """Runs `spec.n_trials` more trials, fewer if a limit is met, a grid is exhausted or a callback stops the study.

    Returns why there were fewer, else an empty text.

    Raises KeyboardInterrupt after the running trials were recorded, SystemExit for SIGTERM; InvalidInput for an
    objective that cannot be sent to a process of its own; EveryTrialFailed when there were some, all of them failed,
    and the study has no best trial from before.
    """
    launcher = None if options.isolation == "none" else Launcher(objective, spawn=options.isolation == "spawn")
    event(logger, "efficiency", study=spec.name, scoring=spec.scoring)
    with (
        progress_view(shown=options.show_progress) as view,
        LocalFiles(options.artifacts) as files,
        active_call(files.call),
        ended_by_sigterm(),
    ):
        fail_abandoned(study, spec, files)
        attrs = retry_until_available(lambda: recorded_environment(study, objective, spec.environment), logger)
        run = _Run(study, spec, callbacks, options, view, files, attrs)
        try:
            if launcher is None:
                run.in_this_process(objective)
            else:
                run.in_processes(launcher)
        except BaseException as error:
            run.interrupt(error)
            raise
    run.raise_if_every_trial_failed()
    return run.over


def fail_abandoned(study: OptunaStudy, spec: StudySpec, files: LocalFiles) -> None:
    """Ends as FAIL the trials that a killed process of this host, or an interrupted call of this one, has left RUNNING.

    Removes their files.
    """
    for trial_id, number, owner in retry_until_available(lambda: study.running_with(OWNER), logger):
        if is_gone(owner):
            reason = f"its process {owner.get('pid')} on {owner.get('host')} ended without recording it"
            if {**owner, "call": files.call} == owner_of(files.call):
                reason = "its call of optimize was interrupted, and ended without recording it"
            lost = Outcome(ending=Ending.LOST, cause=Cause.LOST, message=reason)
            files.remove_all_of(str(owner.get("call")), number)
            retry_until_available(partial(study.finish_trial, trial_id, lost), logger)
            event(logger, "abandoned", level=logging.WARNING, study=spec.name, trial=number, reason=reason)


class _Run:
    """One call: which trial is next, and what becomes of those that end."""

    def __init__(
        self,
        study: OptunaStudy,
        spec: StudySpec,
        callbacks: Sequence[Callback],
        options: RunOptions,
        view: ProgressView,
        files: LocalFiles,
        attrs: Mapping[str, Any],
    ) -> None:
        self._study, self._spec, self._callbacks, self._options, self._view = study, spec, callbacks, options, view
        self._files, self._attrs = files, attrs
        self._checkpoints = LocalCheckpoints(files.checkpoints)
        self._next_ordinal = ordinal_source(study, spec)
        self._began_s = time.monotonic()
        self._owner = {OWNER: owner_of(files.call)}
        self._running: list[LocalTrial] = []
        self._begun = 0
        self._outcomes: list[Outcome] = []
        self.over = ""
        """Why this call starts no further trial."""
        best = retry_until_available(study.best_trials, logger)
        self._best = best[0].value if best else None
        self._limits = RunLimits(spec.to_json(), self._best, has_success=bool(best))

    def in_this_process(self, objective: Objective) -> None:
        """One trial after the other."""
        while (started := self._next()) is not None:
            task, channel = self._task_and_channel(started)
            outcome = attempt_here(self._study, started, objective, task, channel, self._files)
            self._record(started, outcome)

    def in_processes(self, launcher: Launcher) -> None:
        """Up to `n_jobs` at a time."""
        running = self._running
        while True:
            while len(running) < self._options.n_jobs and (started := self._next()) is not None:
                running.append(self._launched(launcher, started))
            if not running:
                return
            for trial in wait_for_ended(running):
                number, saved = trial.started.number, trial.channel.saved
                outcome = self._files.with_artifacts(final_outcome(trial), number, saved)
                outcome = recorded(self._study, trial.channel, trial.started, outcome)
                running.remove(trial)
                self._record(trial.started, outcome)

    def interrupt(self, error: BaseException) -> None:
        """Ends every trial that this call has started and not recorded: none must stay RUNNING."""
        for trial in self._running:
            trial.process.end()
        try:
            for trial in self._running:
                if trial.outcome is not None:  # it was about to leave
                    outcome = self._files.with_artifacts(trial.outcome, trial.started.number, trial.channel.saved)
                    recorded(self._study, trial.channel, trial.started, outcome, for_s=0.0)
            for trial_id, number, owner in self._study.running_with(OWNER):
                if owner == self._owner[OWNER]:
                    self._files.remove_stored(number)
                    self._study.finish_trial(trial_id, interrupted(error))
        except HighNoonError as fault:  # the next call ends them
            event(logger, "not_recorded", level=logging.WARNING, study=self._spec.name, error=fault)

    def raise_if_every_trial_failed(self) -> None:
        """Raises EveryTrialFailed with the failures by their message; a warning where the study has a best trial."""
        if not self._outcomes or not all(map(_has_failed, self._outcomes)):
            return
        count = "the only trial" if len(self._outcomes) == 1 else f"all {len(self._outcomes)} trials"
        why = f"; {self.over}" if self.over else ""
        if self.over == "failures_in_a_row":
            most = failure_limit(self._spec.to_json())
            why = f"; {most} failures in a row end it (max_failures_in_a_row; 0 = never)"
        groups = failure_groups([(outcome.message, outcome.traceback) for outcome in self._outcomes])
        report = f"{count} failed{why}\n" + "\n".join(groups)
        if not retry_until_available(self._study.best_trials, logger):
            raise EveryTrialFailed(report)
        logger.warning("optimize(): the best parameters are an earlier trial's, and of this call %s", report)

    def _next(self) -> StartedTrial | None:
        """The next trial, RUNNING; None when this call starts no more."""
        if self._begun >= self._spec.n_trials or self.over:
            return None
        limit = self._limits.met(time.monotonic() - self._began_s)
        if limit is not None:
            self._stop(limit)
            return None
        try:
            started = retry_until_available(
                lambda: self._study.start_trial(
                    ordinal=self._next_ordinal,
                    kept=self._checkpoints.read,
                    system_attrs=self._owner,
                    user_attrs=self._attrs,
                ),
                logger,
            )
        except SpaceExhausted as exhausted:
            self.over = str(exhausted)
            event(logger, "exhausted", study=self._spec.name, reason=exhausted)
            return None
        self._begun += 1
        self._show()
        return started

    def _launched(self, launcher: Launcher, started: StartedTrial) -> LocalTrial:
        task, channel = self._task_and_channel(started)
        return LocalTrial(started, launcher.start(task), channel, self._spec.scoring)

    def _task_and_channel(self, started: StartedTrial) -> tuple[TrialTask, StudyChannel]:
        task = task_of(self._study, started, self._spec, self._files, self._begun_checkpoints(started))
        return task, channel_of(self._study, started, self._spec, self._files)

    def _begun_checkpoints(self, started: StartedTrial) -> Path | None:
        """None where no trial goes on from another: then it has a temporary folder of its own."""
        if not self._spec.sampler.goes_on_from_checkpoints:
            return None
        return self._checkpoints.begin(started.number, started.extends)

    def _record(self, started: StartedTrial, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._limits.add(outcome)
        self._note_best(outcome)
        log_trial(
            self._spec.name,
            started.number,
            OPTUNA_STATE[outcome.ending],
            value=outcome.logged_value,
            loss=outcome.loss,
            size=outcome.params_count,
            seconds=outcome.duration_s,
            cause=outcome.cause,
            reason=outcome.message,
        )
        if self._spec.keep_best is not None:
            self._files.keep_best(self._study, self._spec.keep_best)
        if self._spec.sampler.goes_on_from_checkpoints:
            begun = self._checkpoints.begun
            needed = retry_until_available(lambda: self._study.checkpoints_needed(begun), logger)
            self._checkpoints.keep_only(needed | {trial.started.number for trial in self._running})
        self._show()
        if self._callbacks and _call_back(self._study, self._callbacks, started):
            self._stop("a callback called study.stop()")
        if self._study.is_stopped_by_sampler:
            self._stop("the sampler called study.stop()")
        if self._study.sampler_fault is not None:
            raise self._study.sampler_fault

    def _stop(self, reason: str) -> None:
        if not self.over:
            self.over = reason
            event(logger, "stopped", study=self._spec.name, reason=reason)

    def _note_best(self, outcome: Outcome) -> None:
        if outcome.ending is Ending.COMPLETED and outcome.value is not None and outcome.is_feasible:
            better = max if self._spec.direction == "maximize" else min
            self._best = outcome.value if self._best is None else better(self._best, outcome.value)

    def _show(self) -> None:
        failed = sum(map(_has_failed, self._outcomes))
        words = [f"best {self._best:.6g}" if self._best is not None else "", f"{failed} failed" if failed else ""]
        self._view.show(self._spec.name, len(self._outcomes), self._spec.n_trials, "  ".join(filter(None, words)))


def _has_failed(outcome: Outcome) -> bool:
    return OPTUNA_STATE[outcome.ending] is TrialState.FAIL


def _call_back(study: OptunaStudy, callbacks: Sequence[Callback], started: StartedTrial) -> bool:
    ended = retry_until_available(study.ended, logger)
    trial = next(trial for trial in reversed(ended) if trial.number == started.number)
    return call_back(study.optuna_study, callbacks, trial)
