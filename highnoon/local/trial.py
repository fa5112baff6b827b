"""Runs one local trial: sends its reports to the study and records its outcome, whatever ends it.

An outage of the database ends nothing. What the database refuses ends the trial as FAIL, with the driver's words.
"""

from __future__ import annotations

import logging
import math
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from highnoon.local.files import LocalFiles
from highnoon.local.process import TrialProcess, artifact_limit
from highnoon.local.study_channel import StudyChannel
from highnoon.shared.domain.errors import HighNoonError, InvariantBroken, ServiceRefused
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import MetricHistory, Outcome
from highnoon.shared.objective.attempt import Objective
from highnoon.shared.objective.exit_outcome import outcome_of_exit
from highnoon.shared.objective.seeds import trial_seed
from highnoon.shared.objective.staged_files import saved_of
from highnoon.shared.objective.trial_events import (
    WRONG_EVENT,
    count_of,
    history_of,
    outcome_of,
    question_of,
    report_of,
    setting_of,
)
from highnoon.shared.objective.trial_pipe import Event
from highnoon.shared.objective.trial_task import TrialTask, run_task
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import StartedTrial
from highnoon.shared.store.outages import retry_until_available
from highnoon.shared.store.trial_definition import PatientDefinition, answer_to, apply_setting

logger = logging.getLogger("highnoon")

_LOOK_S, _LOOK_LEAVING_S = 0.5, 0.01
"""How often a trial process is looked at that ended while others hold its pipe, and one that has given its result."""
_REST_READINGS = 16
"""More than a pipe holds: what a trial has sent before its end. A child of it that is left may report for ever."""
_EXIT_S = 5.0
"""How long a trial process may take to end after its result: what it printed is written then."""


@dataclass(slots=True)
class LocalTrial:
    """A trial in a process of its own."""

    started: StartedTrial
    process: TrialProcess
    channel: StudyChannel
    scoring: Scoring
    began: float = field(default_factory=time.monotonic)
    params_count: int | None = None
    history: MetricHistory = field(default_factory=dict)
    outcome: Outcome | None = None
    leave_by: float = math.inf
    """It is killed then: it has given its outcome."""


def task_of(
    study: OptunaStudy, started: StartedTrial, spec: StudySpec, files: LocalFiles, checkpoints: Path | None
) -> TrialTask:
    """What a started trial runs. Without a seed of the study it has one of its own."""
    return TrialTask.of(
        spec,
        number=started.number,
        params=started.params,
        seed=secrets.randbits(32) if spec.seed is None else trial_seed(spec.seed, started.number),
        repeat_bar=retry_until_available(study.repeat_bar, logger),
        saved=files.folder(started.number),
        checkpoints=checkpoints,
    )


def channel_of(study: OptunaStudy, started: StartedTrial, spec: StudySpec, files: LocalFiles) -> StudyChannel:
    """The channel of a started trial; without a search space it answers what the trial suggests."""
    channel = StudyChannel(study, started.trial_id, files.folder(started.number))
    if spec.defines_by_run:
        definition = study.definition(
            trial_id=started.trial_id, number=started.number, ordinal=started.ordinal, fixed=started.params
        )
        channel.definition = PatientDefinition(definition, logger)
    return channel


def attempt_here(
    study: OptunaStudy,
    started: StartedTrial,
    objective: Objective,
    task: TrialTask,
    channel: StudyChannel,
    files: LocalFiles,
) -> Outcome:
    """Runs a started trial in this process to its end."""
    outcome = run_task(objective, task, channel, channel.definition, artifact_limit)
    return recorded(study, channel, started, files.with_artifacts(outcome, started.number, channel.saved))


def recorded(
    study: OptunaStudy, channel: StudyChannel, started: StartedTrial, outcome: Outcome, *, for_s: float | None = None
) -> Outcome:
    """Writes the outcome; where the database refuses what was reported or returned, FAIL with its words instead.

    Waits for a database that is away; with `for_s` so many seconds, and then raises ServiceUnavailable.
    """
    try:
        retry_until_available(channel.send, logger, for_s=for_s)
        judged = retry_until_available(partial(study.inform_sampler, started.trial_id, outcome), logger, for_s=for_s)
        retry_until_available(lambda: study.finish_trial(started.trial_id, outcome), logger, for_s=for_s)
    except ServiceRefused as error:
        refused = _refused(error, outcome.duration_s)
        retry_until_available(lambda: study.finish_trial(started.trial_id, refused), logger, for_s=for_s)
        return refused
    return judged


def _refused(error: Exception, duration_s: float | None) -> Outcome:
    return Outcome(ending=Ending.FAILED, cause=Cause.REFUSED, message=str(error), duration_s=duration_s)


def interrupted(error: BaseException) -> Outcome:
    words = "interrupted by Ctrl-C" if isinstance(error, KeyboardInterrupt) else f"interrupted: {error!r}"
    if isinstance(error, Terminated):
        words = "interrupted by SIGTERM"
    return Outcome(ending=Ending.FAILED, cause=Cause.INTERRUPTED, message=words)


def wait_for_ended(running: Sequence[LocalTrial]) -> list[LocalTrial]:
    """Waits for events of the trials, handles them, and returns those that have ended."""
    leaves = any(trial.outcome is not None for trial in running)
    pipes = [trial.process.pipe.fileno() for trial in running if not trial.process.pipe.closed]
    wait(pipes, _LOOK_LEAVING_S if leaves else _LOOK_S)
    return [trial for trial in running if _has_ended(trial)]


def _has_ended(trial: LocalTrial) -> bool:
    """Handles one batch of its events: a trial that reports without a pause must not hold up the others."""
    has_exited = trial.process.poll() is not None  # before reading: all that it has sent is there then
    readings = _REST_READINGS if has_exited else 1
    events = [one for _ in range(readings) for one in trial.process.pipe.receive(0.0)]
    try:
        for one in events:
            _handle_event(trial, one)
        if events:
            trial.channel.send_if_possible()
    except (HighNoonError, *WRONG_EVENT) as error:  # of the database, or of what the user wrote to the pipe
        trial.outcome = _refused(error, time.monotonic() - trial.began)
        trial.process.kill()
    if trial.outcome is None:
        return trial.process.pipe.closed or has_exited
    trial.leave_by = min(trial.leave_by, time.monotonic() + _EXIT_S)
    if not has_exited and time.monotonic() >= trial.leave_by:
        logger.warning(
            "trial %d was killed %g s after its result: a thread, an executor or an atexit function of it had not "
            "ended; atexit functions that had not run are skipped",
            trial.started.number,
            _EXIT_S,
        )
        return True
    return has_exited


def _handle_event(trial: LocalTrial, event: Event) -> None:
    if trial.outcome is not None:  # it was refused, and does not know yet
        return
    match event["event"]:
        case "report":
            trial.channel.keep(report_of(event))
        case "params":
            trial.params_count = count_of(event).total
        case "metrics":
            trial.history = history_of(event)
        case "ask":
            trial.process.pipe.send({"event": "answer", "id": event["id"], "answer": _answer(trial.channel, event)})
        case "set":
            _set(trial.channel, event)
        case "file":
            trial.channel.save_file(saved_of(event))
        case "result":
            trial.outcome = replace(outcome_of(event, trial.scoring), duration_s=time.monotonic() - trial.began)
        case "fault":
            raise InvariantBroken(f"something else than the trial wrote to its pipe: {event['reason']}")


def _answer(channel: StudyChannel, event: Event) -> bool | Event:
    question = question_of(event)
    channel.send_if_possible()
    if channel.definition is None or question["question"] == "should_prune":
        return channel.should_prune()
    return answer_to(question, channel.definition)


def _set(channel: StudyChannel, event: Event) -> None:
    setting = setting_of(event)
    if channel.definition is not None:
        apply_setting(setting, channel.definition)


def final_outcome(trial: LocalTrial) -> Outcome:
    """Ends the process. Returns its outcome, or the outcome that follows from its exit status."""
    status = trial.process.end()
    if trial.outcome is not None:
        return trial.outcome
    lost = outcome_of_exit(status)
    hint = ": the kernel does that when memory runs out" if lost.signal == "SIGKILL" else ""
    duration_s = time.monotonic() - trial.began
    return replace(
        lost,
        message=lost.message + hint,
        params_count=trial.params_count,
        metric_history=trial.history,
        duration_s=duration_s,
    )


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the call as Ctrl-C does, then the program with status 143. A handler of the program's own stays."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(_signum: int, _frame: FrameType | None) -> None:
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Terminated:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
