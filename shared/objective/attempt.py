"""One attempt, from parameters to Outcome: the core that the SDK in process and the worker's trial process share.

Owns the order of an attempt's steps. It uses no study, no database and no process: the caller gives a Channel and a
Scoring, and persists the Outcome. What happens to the process itself (kill, segfault, `os._exit`) is seen and judged by
the worker's supervisor.

KeyboardInterrupt is the one thing that passes through: a person wants out. In process, `HPOTrialManager.optimize`
records the trial as FAIL and raises it again; in a worker, the trial process ends by it, and its supervisor
records that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from highnoon.shared.domain.memory_sizes import NO_WISHES, MemoryWishes
from highnoon.shared.domain.score import UNSCORED, Scoring
from highnoon.shared.domain.trial import Outcome, Params, ParamValue
from highnoon.shared.objective.attempt_endings import outcome_of_exception
from highnoon.shared.objective.repetition import ONCE, Repeats, repeated
from highnoon.shared.objective.running_trial import RunningTrial
from highnoon.shared.objective.staged_files import StagedFiles
from highnoon.shared.objective.trial_context import NO_SETTINGS, AttemptChannel, bound

Objective = Callable[[Params], object]
"""What a user writes: takes a plain dict of parameters, returns one number, or a dict of loss and size.

inf is legal and ranks last.
"""


def run_attempt(
    objective: Objective,
    params: Mapping[str, ParamValue],
    channel: AttemptChannel,
    scoring: Scoring = UNSCORED,
    *,
    memory: MemoryWishes = NO_WISHES,
    checkpoints: Path | None = None,
    repeats: Repeats = ONCE,
    files: StagedFiles | None = None,
    settings: Mapping[str, ParamValue] = NO_SETTINGS,
) -> Outcome:
    """Calls `objective(params)` and returns how it ended. Raises nothing but KeyboardInterrupt, whatever the user does.

    `checkpoints` is a folder that outlives this attempt, None where no other would follow it. `repeats` has the trial's
    seed too. `files` takes what the trial saves. `settings` are what a person set for a longer training.
    """
    trial = RunningTrial(channel, scoring, files or StagedFiles(), memory, checkpoints)
    started = time.monotonic()
    with bound(trial, memory=memory, checkpoints=checkpoints, seed=repeats.seed, settings=settings):
        outcome = _ending_of(_with_repeats(objective, trial, repeats, checkpoints), dict(params), trial)
    return replace(
        trial.judged(trial.counted(outcome)),
        loss=_unless_nan(trial.loss),
        duration_s=time.monotonic() - started,
        params_count=trial.count.total if trial.count else None,
        active_params=trial.count.active if trial.count else None,
        metrics=dict(trial.metrics.last),
        metric_history=trial.metrics.history(),
    )


def _with_repeats(objective: Objective, trial: RunningTrial, repeats: Repeats, checkpoints: Path | None) -> Objective:
    if repeats.count == 1:
        return objective
    return lambda params: repeated(objective, params, trial, repeats, checkpoints)


def _ending_of(objective: Objective, params: Params, trial: RunningTrial) -> Outcome:
    try:
        return trial.completed(objective(params))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the border to user code: whatever it raises is an outcome, never our crash
        return outcome_of_exception(error, params, _unless_nan(trial.last.value if trial.last else None))


def _unless_nan(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
