"""Trials in this process, one after another: start, attempt, finish, call back. The first rung of three.

The same core as a worker's (`shared.objective.attempt`, `shared.store`), without a lease: nobody notices when this
process is killed in the middle of a trial, and that trial stays RUNNING. An outage of the database ends nothing: the
training goes on, and what it found is told once the database is back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from highnoon.ordinals import INTERRUPTED, ordinals
from highnoon.shared.domain.errors import ServiceUnavailable, SpaceExhausted
from highnoon.shared.domain.states import OPTUNA_STATE, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.objective.attempt import Objective, run_attempt
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.callbacks import Callback, call_back
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import StartedTrial
from highnoon.shared.store.outages import retry_until_available

logger = logging.getLogger("highnoon")

T = TypeVar("T")


def run_trials(
    study: OptunaStudy, spec: StudySpec, objective: Objective, callbacks: Sequence[Callback]
) -> list[Outcome]:
    """Runs `spec.n_trials` more trials, fewer if a grid is exhausted or a callback stops the study.

    Raises what a callback raises, and KeyboardInterrupt, each after the trial has ended.
    """
    event(logger, "efficiency", study=spec.name, says=spec.scoring)
    next_ordinal = ordinals(study, spec)
    outcomes: list[Outcome] = []
    while len(outcomes) < spec.n_trials:
        try:
            started = retry_until_available(lambda: study.start_trial(ordinal=next_ordinal()), logger)
        except SpaceExhausted as exhausted:
            event(logger, "exhausted", study=spec.name, reason=exhausted)
            break
        outcomes.append(_run_trial(study, started, objective, spec))
        _log_trial(spec, started, outcomes[-1])
        if callbacks and _call_back(study, callbacks, started):
            event(logger, "stopped", study=spec.name, reason="a callback called study.stop()")
            break
    return outcomes


def _call_back(study: OptunaStudy, callbacks: Sequence[Callback], started: StartedTrial) -> bool:
    ended = retry_until_available(study.ended, logger)
    trial = next(trial for trial in reversed(ended) if trial.number == started.number)
    return call_back(study.optuna_study, callbacks, trial)


def _run_trial(study: OptunaStudy, started: StartedTrial, objective: Objective, spec: StudySpec) -> Outcome:
    channel = StudyChannel(study, started.trial_id)
    try:
        outcome = run_attempt(objective, started.params, channel, spec.scoring, memory=spec.memory)
    except BaseException:  # Ctrl-C: the trial must not stay RUNNING
        interrupted = Outcome(ending=Ending.FAILED, cause=INTERRUPTED, message="interrupted by Ctrl-C")
        study.finish_trial(started.trial_id, interrupted)
        raise
    retry_until_available(channel.send, logger)
    retry_until_available(lambda: study.finish_trial(started.trial_id, outcome), logger)
    return outcome


class StudyChannel:
    """What a trial in this process says goes straight to the study, or waits here while its database is away."""

    def __init__(self, study: OptunaStudy, trial_id: int) -> None:
        self._study = study
        self._trial_id = trial_id
        self._unsent: list[Report] = []

    def report(self, value: float, step: int) -> None:
        """Never fails for an outage."""
        self._unsent.append(Report(step=step, value=value))
        _unless_away(self.send, otherwise=None)

    def should_prune(self) -> bool:
        """False while the database is away."""
        return _unless_away(lambda: self._study.should_prune(self._trial_id), otherwise=False)

    def report_params(self, total: int, active: int | None = None) -> None:
        """Nothing to send: the outcome has it, and in this process no trial is lost without its study."""

    def send(self) -> None:
        """Everything reported so far. Raises ServiceUnavailable, and may then be called again."""
        if self._unsent:
            self._study.report_many(self._trial_id, self._unsent)
            self._unsent.clear()


def _unless_away(call: Callable[[], T], *, otherwise: T) -> T:
    try:
        return call()
    except ServiceUnavailable as error:
        event(logger, "database_away", level=logging.WARNING, error=error)
        return otherwise


def _log_trial(spec: StudySpec, started: StartedTrial, outcome: Outcome) -> None:
    event(
        logger,
        "trial",
        level=logging.WARNING if outcome.ending is Ending.FAILED else logging.INFO,
        study=spec.name,
        trial=started.number,
        state=OPTUNA_STATE[outcome.ending],
        value=outcome.value,
        loss=outcome.loss if outcome.loss != outcome.value else None,
        size=outcome.params_count,
        seconds=outcome.duration_s,
        cause=outcome.cause,
        reason=outcome.message or None,
    )


def every_one_failed(outcomes: Iterable[Outcome]) -> Outcome | None:
    """The last outcome, when there are some and not one of them did anything but fail; else None."""
    last = None
    for outcome in outcomes:
        if OPTUNA_STATE[outcome.ending] is not OPTUNA_STATE[Ending.FAILED]:
            return None
        last = outcome
    return last
