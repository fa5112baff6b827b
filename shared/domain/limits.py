"""When a study ends before its last trial. Pure; the same rule in one process and on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from highnoon.shared.domain.states import OPTUNA_STATE, Ending, TrialState
from highnoon.shared.domain.trial import Outcome

FIRST_FAILURES = 5
"""So many failed trials in a row before the first success end a study that names no number of its own."""

OWN_FAILURES = frozenset({Ending.FAILED, Ending.TIMED_OUT})
"""Failures that count then: caused by the study's own code, not by a node."""


MOST_FAILURES = 1000
"""The largest `max_failures_in_a_row`: a coordinator reads so many endings of the study at each tick."""

MOST_PATIENCE = 10_000
"""The largest `patience` of `early_stop`, for the same reason."""


MOST_AT_ONCE = 10_000
"""Points that a sampler holds in memory: a supervisor's, which no limit of a trial bounds."""


def failure_limit(spec: Mapping[str, Any]) -> int:
    """How many failures in a row end the study that this describes; 0 where none do."""
    most = spec.get("max_failures_in_a_row")
    return FIRST_FAILURES if most is None else int(most)


def limit_met(
    spec: Mapping[str, Any],
    *,
    age_s: float,
    best_value: float | None,
    has_success: bool,
    recent_endings: Sequence[Ending],
    since_best: int,
) -> str | None:
    """The limit of the written study that is met, by its key; None while none is.

    `recent_endings` are newest first, as many as `failure_limit` without cancelled ones; `since_best` counts the trials
    that have ended since the best one.
    """
    timeout_s = spec.get("timeout")
    if timeout_s is not None and age_s >= timeout_s:
        return "timeout"
    target = spec.get("target_value")
    if target is not None and best_value is not None:
        maximizes = spec.get("direction") == "maximize"
        if best_value >= target if maximizes else best_value <= target:
            return "target_value"
    most = failure_limit(spec)
    # That a person stopped a trial is no evidence about the others.
    recent = [ending for ending in recent_endings if ending is not Ending.CANCELLED][:most]
    if most and len(recent) == most and all(OPTUNA_STATE[ending] is TrialState.FAIL for ending in recent):
        is_own = spec.get("max_failures_in_a_row") is not None
        if is_own or (not has_success and not set(recent) - OWN_FAILURES):
            return "failures_in_a_row"
    early_stop = spec.get("early_stop")
    if early_stop is not None and since_best >= early_stop["patience"]:
        return "early_stop"
    return None


class RunLimits:
    """The limits of a study that one process runs trial after trial: they count from the start of this run."""

    def __init__(self, spec: Mapping[str, Any], best_value: float | None, *, has_success: bool = False) -> None:
        """`best_value` is what the study had before this run; several objectives and infeasible trials have none."""
        self._spec = spec
        self._best = best_value
        self._has_success = has_success or best_value is not None
        self._endings: list[Ending] = []
        self._since_best = 0

    def add(self, outcome: Outcome) -> None:
        """One more trial has ended."""
        self._endings.insert(0, outcome.ending)
        self._since_best += 1
        self._has_success = self._has_success or outcome.ending is Ending.COMPLETED
        is_candidate = outcome.ending is Ending.COMPLETED and outcome.is_feasible
        if is_candidate and outcome.value is not None and self._is_better(outcome.value):
            self._best, self._since_best = outcome.value, 0

    def met(self, age_s: float) -> str | None:
        """The key of the limit that ends the run; None while none does."""
        return limit_met(
            self._spec,
            age_s=age_s,
            best_value=self._best,
            has_success=self._has_success,
            recent_endings=self._endings,
            since_best=self._since_best,
        )

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return True
        return value > self._best if self._spec.get("direction") == "maximize" else value < self._best
