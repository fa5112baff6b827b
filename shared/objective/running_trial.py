"""The trial as its objective meets it: refuses what is no report, scores what is one, and remembers the last.

Uses no study, no database and no process: what passes goes to the channel that the caller has.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from highnoon.shared.domain import result_parsing as readings
from highnoon.shared.domain.errors import InvalidObjectiveResult, TrialStopped
from highnoon.shared.domain.goals import feasibility
from highnoon.shared.domain.memory_sizes import NO_WISHES, MemoryWishes
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.trial import Outcome, ParamCount, Report, json_number
from highnoon.shared.objective.metric_log import MetricLog
from highnoon.shared.objective.repetition import mean
from highnoon.shared.objective.staged_files import StagedFiles
from highnoon.shared.objective.trial_context import AttemptChannel, bound

_log = logging.getLogger("highnoon")
_warned: set[str] = set()
"""Kinds of warnings that this process has logged."""
_MOST_STEPS = 100_000
"""Of one trial, compared for a warning: a trial that reports each batch would fill its memory with them."""

CHECKPOINT_VARIABLE = "HIGHNOON_CHECKPOINT_DIR"
"""Of a worker's trial process: the folder of its checkpoints."""


class RunningTrial:
    """Between the objective and the channel of one attempt."""

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
        """What each repeat has logged."""
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
        if len(self._steps) < _MOST_STEPS:
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
            self.metrics.record_curve(numbers, index)

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

    def counted(self, outcome: Outcome) -> Outcome:
        """Returns COMPLETED instead of PRUNED where the study's sampler takes the last report as the result (pbt)."""
        if outcome.ending is not Ending.PRUNED or outcome.value is None or not self._scoring.last_report_counts:
            return outcome
        return replace(outcome, ending=Ending.COMPLETED, cause=Cause.SEGMENT_END)

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
                f"{self.count.total:,} parameters, {self._scoring.param_budget:,} allowed",
                constraint=excess,
                cause=Cause.PARAM_BUDGET,
            )


def _means(logged: Sequence[Mapping[str, float | str]]) -> dict[str, float | str]:
    """Of each metric over the repeats that have it."""
    names = dict.fromkeys(name for one in logged for name in one)
    values = {name: [float(one[name]) for one in logged if name in one] for name in names}
    return {name: json_number(mean(found)) or 0.0 for name, found in values.items()}


def _warn_once(sentence: str, of: str = "report()") -> None:
    """Of each kind one line per process: in a study of a thousand trials a thousand lines help less."""
    kind = sentence.partition(" ")[0] if of == "report()" else of
    if kind not in _warned:
        _warned.add(kind)
        _log.warning("%s: %s", of, sentence)
