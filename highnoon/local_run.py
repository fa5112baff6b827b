"""Runs trials in this process, one after another: sample, attempt, record, call back.

The same core as a worker's (`shared.objective.attempt`, `shared.store`), without a lease: when this process is killed
in the middle of a trial, that trial stays RUNNING. An outage of the database ends nothing: the training goes on, and
its result is recorded once the database is back.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from highnoon.shared.domain.errors import EveryTrialFailed, ServiceUnavailable, SpaceExhausted
from highnoon.shared.domain.limits import RunLimits
from highnoon.shared.domain.states import OPTUNA_STATE, Ending, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Params, Report
from highnoon.shared.objective.attempt import Objective, run_attempt
from highnoon.shared.objective.defined_trial import StudyFacts, given_trial
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.presampling import Grid
from highnoon.shared.store.callbacks import Callback, call_back
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import StartedTrial
from highnoon.shared.store.outages import retry_until_available
from highnoon.shared.store.trial_definition import PatientDefinition
from highnoon.shared.store.trial_results import CAUSE

logger = logging.getLogger("highnoon")

INTERRUPTED = "interrupted"
"""The cause of a trial that a person interrupted with Ctrl-C: a grid visits its point again."""

_random = random.SystemRandom()
"""Not the module's own generator: an objective that seeds it would make two processes choose the same."""


def run_trials(study: OptunaStudy, spec: StudySpec, objective: Objective, callbacks: Sequence[Callback]) -> None:
    """Runs `spec.n_trials` more trials, fewer if a limit is met, a grid is exhausted or a callback stops the study.

    Raises what a callback raises, and KeyboardInterrupt, each after the trial was recorded; EveryTrialFailed when there
    were some and all of them failed.
    """
    event(logger, "efficiency", study=spec.name, says=spec.scoring)
    next_ordinal = _ordinal_source(study, spec)
    outcomes: list[Outcome] = []
    best = study.best_trial()
    limits, began_s = RunLimits(spec.to_json(), None if best is None else best.value), time.monotonic()
    while len(outcomes) < spec.n_trials:
        if (reason := limits.met(time.monotonic() - began_s)) is not None:
            event(logger, "stopped", study=spec.name, reason=reason)
            break
        try:
            started = retry_until_available(lambda: study.start_trial(ordinal=next_ordinal()), logger)
        except SpaceExhausted as exhausted:
            event(logger, "exhausted", study=spec.name, reason=exhausted)
            break
        outcomes.append(_run_trial(study, started, objective, spec))
        limits.add(outcomes[-1])
        _log_trial(spec, started, outcomes[-1])
        if callbacks and _call_back(study, callbacks, started):
            event(logger, "stopped", study=spec.name, reason="a callback called study.stop()")
            break
    if outcomes and all(OPTUNA_STATE[outcome.ending] is TrialState.FAIL for outcome in outcomes):
        count = "the only trial" if len(outcomes) == 1 else f"all {len(outcomes)} trials"
        last = outcomes[-1]
        raise EveryTrialFailed(f"{count} failed; the last one: {last.message}\n{last.traceback}".rstrip())


def _call_back(study: OptunaStudy, callbacks: Sequence[Callback], started: StartedTrial) -> bool:
    ended = retry_until_available(study.ended, logger)
    trial = next(trial for trial in reversed(ended) if trial.number == started.number)
    return call_back(study.optuna_study, callbacks, trial)


def _run_trial(study: OptunaStudy, started: StartedTrial, objective: Objective, spec: StudySpec) -> Outcome:
    channel = StudyChannel(study, started.trial_id)
    if spec.defines_by_run:
        channel.definition = PatientDefinition(
            study.definition(
                trial_id=started.trial_id, number=started.number, ordinal=started.ordinal, fixed=started.params
            ),
            logger,
        )
        facts = StudyFacts(study_name=spec.name, direction_name=spec.direction)
        objective = given_trial(objective, channel.definition, started.number, facts)
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
    """Sends what a trial in this process reports to the study, or keeps it while the database is away."""

    def __init__(self, study: OptunaStudy, trial_id: int) -> None:
        self._study = study
        self._trial_id = trial_id
        self._unsent: list[Report] = []
        self.definition: PatientDefinition | None = None

    def report(self, value: float, step: int) -> None:
        """Never fails for an outage."""
        self._unsent.append(Report(step=step, value=value))
        with _outage_tolerated():
            self.send()

    def should_prune(self) -> bool:
        """False while the database is away."""
        is_hopeless = False
        with _outage_tolerated():
            is_hopeless = self._study.should_prune(self._trial_id)
        return is_hopeless

    def report_params(self, total: int, active: int | None = None) -> None:
        """Nothing to send: the outcome has it."""

    def send(self) -> None:
        """Everything reported so far. Raises ServiceUnavailable, and may then be called again."""
        if self._unsent:
            self._study.report_many(self._trial_id, self._unsent)
            self._unsent.clear()
        if self.definition is not None:
            self.definition.flush()


@contextmanager
def _outage_tolerated() -> Iterator[None]:
    try:
        yield
    except ServiceUnavailable as error:
        event(logger, "database_away", level=logging.WARNING, error=error)


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


def _ordinal_source(study: OptunaStudy, spec: StudySpec) -> Callable[[], int]:
    """A function that gives the ordinal of the next trial, as a ticket has one in a cluster.

    For a sampler it only varies the seed. For a grid it is a point that no trial has visited; beyond the last point it
    is the ordinal at which the study is exhausted. Other processes may add to the same study at the same time, without
    a lock: every point is visited, and two processes that start within the same milliseconds may take the same one.
    They choose at random so that this stays rare.
    """
    grid = Grid.of(spec)
    if grid is None:
        return lambda: len(study.optuna_study.get_trials(deepcopy=False))
    points = {_point_key(grid.point(ordinal).params): ordinal for ordinal in range(len(grid))}

    def unvisited() -> int:
        trials = study.optuna_study.get_trials(deepcopy=False)
        visited = {_point_key(trial.params) for trial in trials if trial.user_attrs.get(CAUSE) != INTERRUPTED}
        free = [ordinal for point, ordinal in points.items() if point not in visited]
        return _random.choice(free) if free else len(points)

    return unvisited


def _point_key(params: Params) -> tuple[object, ...]:
    return tuple(sorted(params.items()))
