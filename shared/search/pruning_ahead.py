"""Which further reports of a running trial its pruner certainly lets pass, by the other trials as they were read.

The median and percentile pruners compare the best value so far with a percentile of the COMPLETE trials at that step,
and successive halving decides at its rungs alone; both can be computed ahead. Other pruners are asked at each report.
What is private in Optuna 5.0.x and used here is checked by tests/contract/test_samplers.py.
"""

from __future__ import annotations

import heapq
import math

from optuna.pruners import BasePruner, NopPruner, PercentilePruner
from optuna.pruners._percentile import _get_percentile_intermediate_result_over_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from highnoon.shared.domain.safe_reports import SafeReports
from highnoon.shared.search.asha import AshaPruner
from highnoon.shared.search.population import SegmentPruner

HOLDS_S = 1.0
"""How old the other trials may be at a decision, unless the database is slow or away."""

_BEYOND_ALL = 2**31
"""No step is as large."""

ALL_SAFE = SafeReports(for_s=HOLDS_S, before_step=_BEYOND_ALL)


def safe_reports(
    pruner: BasePruner,
    direction: StudyDirection,
    complete: list[FrozenTrial],
    trial: FrozenTrial,
    *,
    n_steps: int,
    for_s: float,
) -> SafeReports | None:
    """Of `trial`, for the next `n_steps` steps that others had; None where nothing can be computed ahead."""
    if isinstance(pruner, NopPruner):
        return SafeReports(for_s=for_s, before_step=_BEYOND_ALL)
    if isinstance(pruner, AshaPruner):
        return SafeReports(for_s=for_s, before_step=pruner.next_rung_step(trial))
    if isinstance(pruner, SegmentPruner):
        return SafeReports(for_s=for_s, before_step=pruner.last_step(trial) or _BEYOND_ALL)
    if not isinstance(pruner, PercentilePruner):
        return None
    if len(complete) < max(1, pruner._n_startup_trials):
        return SafeReports(for_s=for_s, before_step=_BEYOND_ALL)
    if n_steps == 0:
        return None
    maximizes = direction is StudyDirection.MAXIMIZE
    bounds = {}
    for step in _next_steps(complete, trial, n_steps, from_step=pruner._n_warmup_steps):
        bound = _get_percentile_intermediate_result_over_trials(
            complete, direction, step, pruner._percentile, pruner._n_min_trials
        )
        # NaN: too few others had this step, and any value passes.
        bounds[step] = (-math.inf if maximizes else math.inf) if math.isnan(bound) else bound
    return SafeReports(for_s=for_s, before_step=pruner._n_warmup_steps, bounds=bounds, maximizes=maximizes)


def _next_steps(complete: list[FrozenTrial], trial: FrozenTrial, n_steps: int, *, from_step: int) -> list[int]:
    """Steps of the longest other trial that come after this one's last."""
    longest = max(complete, key=lambda one: len(one.intermediate_values))
    last = -1 if trial.last_step is None else trial.last_step
    return heapq.nsmallest(n_steps, (step for step in longest.intermediate_values if step > last and step >= from_step))
