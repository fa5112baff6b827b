"""What trials say about a space: points with values to minimize, and points that need not be tried again. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.search.encoding import Cube, Points, keys_of
from highnoon.shared.search.gaussian_process import Vector

_NORMAL = NormalDist()

_PRUNED_AT_LEAST = 0.75
"""A pruned trial counts as no better than this share of the complete ones: it was trained for less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known: points with values to minimize, points under way, and which points are known at all."""

    points: Points
    values: Vector
    pending: Points
    keys: frozenset[bytes]

    @property
    def differs(self) -> bool:
        """Whether there is anything to learn from."""
        return len(self.values) > 1 and bool(np.ptp(self.values) > 0)


def evidence_of(cube: Cube, trials: Sequence[FrozenTrial], *, minimizes: bool, pending: FrozenTrial) -> Evidence:
    """Evidence from all trials that have every parameter, except the one that is `pending`."""
    usable = [one for one in trials if one.params.keys() >= set(cube.names) and one._trial_id != pending._trial_id]
    encoded = cube.encode(one.params for one in usable)
    keys = keys_of(encoded)
    sign = 1.0 if minimizes else -1.0
    values = np.array([_value(one, sign) for one in usable], dtype=float).reshape(-1)
    is_running = np.array([one.state is TrialState.RUNNING for one in usable], dtype=bool)
    is_known = np.isfinite(values)
    # The same parameters are tried again after an attempt that was lost: it is no evidence.
    elsewhere = {key for key, known, running in zip(keys, is_known, is_running, strict=True) if known or running}
    failed = [one.state is TrialState.FAIL and key not in elsewhere for one, key in zip(usable, keys, strict=True)]
    bad = ~is_known & (np.array(failed, dtype=bool) | np.isinf(values))
    bad |= np.array([any(limit > 0 for limit in one.constraints.values()) for one in usable], dtype=bool) & ~is_running
    good = is_known & ~bad
    pruned = good & np.array([one.state is TrialState.PRUNED for one in usable], dtype=bool)
    whole = values[good & ~pruned]
    if whole.size:
        values[pruned] = np.maximum(values[pruned], np.quantile(whole, _PRUNED_AT_LEAST))
        values[bad] = max(whole.max(), values[good].max())
    known = good | bad if whole.size else good
    return Evidence(points=encoded[known], values=values[known], pending=encoded[is_running], keys=frozenset(keys))


def _value(trial: FrozenTrial, sign: float) -> float:
    """To be minimized; NaN for a trial without one."""
    if trial.state is TrialState.COMPLETE and trial.values:
        return sign * float(trial.values[0])
    if trial.state is TrialState.PRUNED and trial.last_step is not None:
        return sign * float(trial.intermediate_values[trial.last_step])
    return math.nan


def warped(values: Vector) -> Vector:
    """Mean 0 and deviation 1; what is worse than the median lies as far from it as its rank gives."""
    median = float(np.median(values))
    spread = math.sqrt(float(np.mean((median - values[values <= median]) ** 2))) or 1.0
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    by_rank = np.array([_NORMAL.inv_cdf((rank + 0.5) / len(values)) for rank in ranks])
    bent = np.where(values <= median, values, median + spread * np.maximum(by_rank, 0.0))
    return np.asarray((bent - bent.mean()) / (bent.std() or 1.0))
