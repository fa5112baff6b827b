"""One attempt, from parameters to Outcome: the core that the SDK in process and the worker's trial process share.

Owns what every ending of the user's code means: a return value, an exception, a signal of ours, `sys.exit`; and that
reports and result are scored alike. It uses no study, no database and no process: the caller gives a Channel
and a Scoring, and persists the Outcome. What happens to the process itself (kill, segfault, `os._exit`) is seen and
judged by the worker's supervisor.

KeyboardInterrupt is the one thing that passes through: a person wants out. In process, `HPOTrialManager.optimize`
records the trial as FAIL and raises it again; in a worker, the trial process ends by it, and its supervisor
records that.
"""

from __future__ import annotations

import logging
import math
import os
import reprlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from highnoon.shared.domain import result_parsing as readings
from highnoon.shared.domain.errors import (
    InvalidObjectiveResult,
    MissingParamCount,
    TrialCancelled,
    TrialPruned,
    TrialStopped,
)
from highnoon.shared.domain.goals import feasibility
from highnoon.shared.domain.memory_sizes import NO_WISHES, MemoryWishes
from highnoon.shared.domain.score import UNSCORED, Scoring
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.tracebacks import shortened, storable, text_of, user_traceback
from highnoon.shared.domain.trial import Outcome, ParamCount, Params, ParamValue, Report, json_number
from highnoon.shared.objective.metric_log import MetricLog
from highnoon.shared.objective.repetition import ONCE, Repeats, repeated
from highnoon.shared.objective.staged_files import StagedFiles
from highnoon.shared.objective.trial_context import NO_SETTINGS, AttemptChannel, bound

Objective = Callable[[Params], object]
"""What a user writes: takes a plain dict of parameters, returns one number, or a dict of loss and size.

inf is legal and ranks last.
"""

_log = logging.getLogger("highnoon")
_warned: set[str] = set()
"""Kinds of warnings that this process has logged."""

CHECKPOINT_VARIABLE = "HIGHNOON_CHECKPOINT_DIR"
"""Of a worker's trial process: the folder of its checkpoints."""

_LONGEST_CAUSE = 40
"""As the ledger keeps it; a reason of the user's own may be any text."""


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
    trial = _Trial(channel, scoring, files or StagedFiles(), memory, checkpoints)
    started = time.monotonic()
    with bound(trial, memory=memory, checkpoints=checkpoints, seed=repeats.seed, settings=settings):
        outcome = _ending_of(_with_repeats(objective, trial, repeats, checkpoints), dict(params), trial)
    return replace(
        trial.judged(outcome),
        loss=_unless_nan(trial.loss),
        duration_s=time.monotonic() - started,
        params_count=trial.count.total if trial.count else None,
        active_params=trial.count.active if trial.count else None,
        metrics=dict(trial.metrics.last),
        metric_history=trial.metrics.history(),
    )


class _Trial:
    """The channel as the objective meets it: refuses what is no report, scores what is one, remembers the last."""

    def __init__(
        self,
        channel: AttemptChannel,
        scoring: Scoring,
        files: StagedFiles,
        memory: MemoryWishes = NO_WISHES,
        checkpoints: Path | None = None,
    ) -> None:
        self._channel = channel
        self._files = files
        self._says_when_saved = False
        self._scoring = scoring
        self._memory = memory
        self._checkpoints = checkpoints
        self._repeat = 0
        self._reports = 0
        self._scored_with: int | None = None
        self._steps: set[int] = set()
        self.count: ParamCount | None = None
        self.metrics = MetricLog(channel)
        self.logged: list[Mapping[str, float | str]] = []
        self._own_misses: dict[str, float] = {}
        self.last: Report | None = None
        self.loss: float | None = None

    def report(self, value: object, step: object) -> None:
        """Raises InvalidInput for what is no report, MissingParamCount, and InvalidObjectiveResult for no score."""
        given = readings.report(value, step)
        self._reports += 1
        if self._repeat > 0:
            self._channel.progress()
        else:
            self._send_report(given)
        if not self._says_when_saved:
            self._pack_checkpoint()

    def _send_report(self, given: Report) -> None:
        self._warn_of(given)
        self._refuse_beyond_a_hard_budget()
        scored = replace(given, value=self._score(given.value))
        if self.last is None or given.step > self.last.step:
            self.last, self.loss = scored, given.value
        self._channel.report(scored.value, scored.step)

    def _warn_of(self, given: Report) -> None:
        if given.step in self._steps:
            _warn_once(f"step {given.step} was reported before in this trial: the first value of a step stays")
        elif math.isnan(given.value):
            _warn_once(f"the value reported at step {given.step} is NaN, which pruners take for the worst")
        self._steps.add(given.step)

    def should_prune(self) -> bool:
        """The decision of the study's pruner, which compares first repeats."""
        return self._repeat == 0 and self._channel.should_prune()

    def report_params(self, total: object, active: object = None) -> None:
        """Raises InvalidInput for what is no count, InvalidObjectiveResult for a second size, and TrialStopped."""
        count = readings.param_count(total, active)
        self._take(count)
        self._channel.report_params(count.total, count.active)
        self._refuse_beyond_a_hard_budget()

    @property
    def maximizes(self) -> bool:
        """Whether larger values are better."""
        return self._scoring.direction == "maximize"

    def log(self, metrics: Mapping[str, object], step: object = None) -> None:
        """Keeps the newest value of each, and the first repeat's as a curve. Raises InvalidInput with every mistake."""
        numbers, index = readings.metrics(metrics, step)
        self.metrics.keep(numbers, index)
        if self._repeat == 0:
            self.metrics.draw(numbers, index)

    def keep(self, numbers: Mapping[str, float]) -> None:
        """Keeps numbers of ours beside the value, without a curve."""
        self.metrics.keep(numbers)

    def set_constraint(self, name: str, miss: float) -> None:
        """One that the objective has set by itself; the first value stays."""
        largest = sys.float_info.max  # JSON has no infinity
        self._own_misses.setdefault(name, max(-largest, min(miss, largest)))

    @contextmanager
    def begin_repeat(self, index: int, seed: int) -> Iterator[None]:
        """In a folder of its own, or a repeat would go on where the one before it has ended."""
        self._repeat = index
        folder = None if self._checkpoints is None else self._checkpoints / f"repeat-{index + 1}"
        if folder is not None and CHECKPOINT_VARIABLE in os.environ:
            os.environ[CHECKPOINT_VARIABLE] = str(folder)
        before = self.metrics.begin_repeat()
        try:
            with bound(self, memory=self._memory, checkpoints=folder, seed=seed):
                yield
        finally:
            self.logged.append(self.metrics.last)
            self.metrics.last = {**before, **_means(self.logged)}

    def end_repeat(self, index: int, mean: float) -> None:
        """Reports the mean so far, of an objective that reports nothing."""
        if self._reports == 0:
            self.last, self.loss = Report(step=index, value=self._score(mean)), mean
            self._channel.report(self.last.value, index)

    def score_of(self, returned: object) -> float:
        """The score of what one repeat returned. Raises what `completed` raises."""
        loss, count = readings.result(returned)
        if count is not None:
            self._take(count)
        self._refuse_beyond_a_hard_budget()
        return self._score(loss)

    def save_artifact(self, path: object, name: object = None) -> None:
        """Copies it now, so that the objective may change it. Raises InvalidInput, OSError."""
        self._channel.save_file(self._files.copy(path, name))

    def checkpoint_saved(self) -> None:
        """From now on a report packs nothing: it may come before the checkpoint of the same epoch."""
        self._says_when_saved = True
        self._pack_checkpoint()

    def _pack_checkpoint(self) -> None:
        """A disk that refuses costs the checkpoint, and not the trial."""
        try:
            packed = self._files.pack_if_due(self._checkpoints)
        except OSError as error:
            _warn_once(f"the checkpoint could not be packed: {error}", "checkpoint_dir()")
        else:
            if packed is not None:
                self._channel.save_file(packed)

    def completed(self, returned: object) -> Outcome:
        """The outcome of what the objective returned. Raises what `report` and `report_params` raise."""
        goals = self._scoring.objectives
        if goals:
            count = readings.count_in(returned)
        else:
            self.loss, count = readings.result(returned)
        numbers, others = readings.further_numbers(returned)
        self.metrics.keep({name: number for name, number in numbers.items() if name not in goals})
        if others:
            _warn_once(f"{', '.join(others)} of the returned dict: no number, and not kept", "the result")
        if count is not None:
            self._take(count)
        self._refuse_beyond_a_hard_budget()
        if not goals:
            return Outcome(ending=Ending.COMPLETED, value=self._score(self.loss or 0.0))
        values = readings.values(returned, list(goals), self._known)
        self.loss = dict(zip(goals, values, strict=True)).get("loss")
        return Outcome(ending=Ending.COMPLETED, values=values)

    def judged(self, outcome: Outcome) -> Outcome:
        """With how far it is from each constraint of the study or of its own, in words where it does not keep one."""
        has_some = self._scoring.constraints or self._own_misses
        if not has_some or outcome.ending not in (Ending.COMPLETED, Ending.PRUNED):
            return outcome
        is_complete = outcome.ending is Ending.COMPLETED
        returned = dict(zip(self._scoring.objectives, outcome.values, strict=False))
        found = feasibility(self._scoring.constraints, {**self._known, **returned}, is_complete=is_complete)
        own = (f"constraint {name} is {miss:g}, above 0" for name, miss in self._own_misses.items() if miss > 0)
        words = [outcome.message, *(f"infeasible: {reason}" for reason in (*found.reasons, *own))]
        misses = {**found.misses, **self._own_misses}
        return replace(outcome, misses=misses, message="; ".join(filter(None, words)))

    @property
    def _known(self) -> dict[str, float]:
        """What objectives and constraints may name, beside what is returned for it."""
        known = {name: float(number) for name, number in self.metrics.last.items()}
        sizes = {} if self.count is None else {"params": self.count.total, "active_params": self.count.active}
        numbers = {"loss": self.loss, **sizes}
        return known | {name: float(number) for name, number in numbers.items() if number is not None}

    def _take(self, count: ParamCount) -> None:
        """Within a trial the factor is constant, or its reports could not be compared with its result."""
        if self._scored_with is not None and count.total != self._scored_with:
            raise InvalidObjectiveResult(
                f"the trial has {count.total:,} parameters now, and its reports were scored with "
                f"{self._scored_with:,}; give the size that counts before the first report"
            )
        self.count = count

    def _score(self, loss: float) -> float:
        size = self.count.total if self.count else None
        score = self._scoring.score(loss, size)
        if self._scoring.is_on:
            self._scored_with = size
        return score

    def _refuse_beyond_a_hard_budget(self) -> None:
        excess = self._scoring.excess(self.count.total) if self.count else None
        if self.count is not None and excess is not None:
            raise TrialStopped(
                f"param_budget: {self.count.total:,} parameters, {self._scoring.param_budget:,} allowed",
                constraint=excess,
            )


def _with_repeats(objective: Objective, trial: _Trial, repeats: Repeats, checkpoints: Path | None) -> Objective:
    if repeats.count == 1:
        return objective
    maximize = trial.maximizes
    return lambda params: repeated(objective, params, trial, repeats, maximize=maximize, folder=checkpoints)


def _means(logged: Sequence[Mapping[str, float | str]]) -> dict[str, float | str]:
    """Of each metric over the repeats that have it."""
    names = dict.fromkeys(name for one in logged for name in one)
    values = {name: [float(one[name]) for one in logged if name in one] for name in names}
    return {name: json_number(math.fsum(found) / len(found)) or 0.0 for name, found in values.items()}


def _warn_once(sentence: str, of: str = "report()") -> None:
    """Of each kind one line per process: in a study of a thousand trials a thousand lines help less."""
    kind = sentence.partition(" ")[0] if of == "report()" else of
    if kind not in _warned:
        _warned.add(kind)
        _log.warning("%s: %s", of, sentence)


def _ending_of(objective: Objective, params: Params, trial: _Trial) -> Outcome:
    try:
        return trial.completed(objective(params))
    except KeyboardInterrupt:
        raise
    except InvalidObjectiveResult as error:
        return Outcome(ending=Ending.FAILED, cause="invalid_result", message=storable(str(error)))
    except MissingParamCount as error:
        return Outcome(ending=Ending.FAILED, cause="no_param_count", message=storable(str(error)))
    except SystemExit as error:
        return _exited(error)
    except BaseException as error:  # the border to user code: whatever it raises is an outcome, never our crash
        return _early_end(error, trial) or _failure(error, params)


def _early_end(error: BaseException, trial: _Trial) -> Outcome | None:
    """The outcome of a signal that ends a trial without a fault; None for everything else."""
    last = _unless_nan(trial.last.value if trial.last else None)
    if isinstance(error, _pruned_types()):
        return Outcome(ending=Ending.PRUNED, value=last, cause="pruner", message=storable(text_of(error)))
    if isinstance(error, TrialStopped):
        reason = storable(text_of(error))
        cause = reason.partition(":")[0][:_LONGEST_CAUSE] or "stopped"
        return Outcome(ending=Ending.STOPPED, value=last, cause=cause, message=reason, constraint=error.constraint)
    if isinstance(error, TrialCancelled):
        return Outcome(ending=Ending.CANCELLED, cause="cancelled", message=storable(text_of(error)))
    return None


def _unless_nan(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _pruned_types() -> tuple[type[BaseException], ...]:
    """Ours, and Optuna's own if the user's code has imported it: either spelling prunes."""
    theirs = getattr(sys.modules.get("optuna"), "TrialPruned", None)
    return (TrialPruned, theirs) if isinstance(theirs, type) and issubclass(theirs, BaseException) else (TrialPruned,)


_HINT_OF_A_DICT = (
    "With a search_space the objective gets a dict: params['x'], hn.report(value, step). "
    "Leave the search_space out, and it gets a trial"
)

_shown = reprlib.Repr()
_shown.maxother = _shown.maxstring = 80


def _exited(error: SystemExit) -> Outcome:
    code = error.code
    return Outcome(
        ending=Ending.FAILED,
        cause="exited",
        message=storable(f"the objective called sys.exit({'' if code is None else _shown.repr(code)})"),
        traceback=user_traceback(error),
        exit_status=code if isinstance(code, int) else 0 if code is None else 1,
    )


def _failure(error: BaseException, params: Params) -> Outcome:
    """A fault of the objective's, or what it was given did not fit into memory: that the sampler is to learn."""
    text = " ".join(text_of(error).split())
    if isinstance(error, AttributeError) and error.obj is params:
        text += f". {_HINT_OF_A_DICT}"
    name = type(error).__name__
    cause = _cause_of(error)
    return Outcome(
        ending=Ending.FAILED if cause == "exception" else Ending.STOPPED,
        cause=cause,
        message=storable(f"{name}: {shortened(text, 500)}" if text else name),
        traceback=user_traceback(error),
    )


def _cause_of(error: BaseException) -> str:
    """Memory that ran out has causes of its own; TensorFlow's error is known by name, as we never import it."""
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if any(cls.__name__ == "ResourceExhaustedError" for cls in type(error).__mro__):
        return "out_of_memory" if "device:CPU" in text_of(error) else "oom_gpu"
    return "exception"
