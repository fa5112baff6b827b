"""What the callbacks of all frameworks share: metrics of a step become a report, a pruning decision and numbers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from highnoon.shared.domain.errors import InvalidInput, MissingExtra, Problem, TrialPruned, nearest
from highnoon.shared.domain.result_parsing import numbers_of
from highnoon.shared.objective.trial_context import channel


class MetricReporter:
    """Reports `monitor` of each step's metrics, and logs all of them. `callback` is the name that messages give."""

    def __init__(self, callback: str, monitor: str, every: int = 1) -> None:
        problems = []
        if not isinstance(monitor, str) or not monitor:
            problems.append(Problem(key="monitor", message="must be the name of a metric", value=monitor))
        if type(every) is not int or every < 1:
            problems.append(Problem(key="every", message="must be a whole number >= 1", value=every))
        if problems:
            raise InvalidInput(callback, problems)
        self.monitor = monitor
        self._callback = callback
        self._every = every
        self._last_step: int | None = None

    @property
    def has_reported(self) -> bool:
        """False while no step had the metric."""
        return self._last_step is not None

    def report(self, metrics: Mapping[str, object], step: int) -> None:
        """Raises TrialPruned when the study's pruner ends the trial here, InvalidInput without that metric.

        A step that is not beyond the last one, as of a second `fit`, becomes the next one.
        """
        if step % self._every:
            return
        if self.monitor not in metrics:
            raise self.missing(metrics)
        step = step if self._last_step is None else max(step, self._last_step + 1)
        self._last_step = step
        trial = channel()
        trial.log(numbers_of(metrics)[0], step)
        trial.report(metrics[self.monitor], step)  # type: ignore[arg-type]  # it refuses what is no number
        if trial.should_prune():
            raise TrialPruned(f"not promising at step {step}: {self.monitor} {metrics[self.monitor]}")

    def missing(self, metrics: Mapping[str, object]) -> InvalidInput:
        """The error of a metric that is not among those that were measured."""
        hint = nearest(self.monitor, metrics) or "Nothing was measured."
        return InvalidInput.of(
            self._callback, "monitor", "is not among the metrics of this training", value=self.monitor, hint=hint
        )


def framework(module: str, callback: str) -> Any:
    """The module of a framework. Raises MissingExtra where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise MissingExtra(f"{callback} needs {package}: pip install {package}", name=package) from error
