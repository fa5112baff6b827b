"""Whether a proposal will fit, learnt from the trials that did and those that did not. Pure.

Optuna's TPE ranks a trial that missed a constraint behind all others, and its best trials still draw it back: where
a larger model is a better one they lie just below the limit, and half of what is drawn around them lies above it.
This estimates how likely a proposal fits; `presampling` takes it, or samples another one.

A logistic regression: what is missed here (memory, parameters) grows with each size by itself, and sizes multiply, so
that the border is a plane once sizes are logarithms, whatever the other parameters are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.search.samplers import Distributions

_SIZES = ("memory", "param_budget", "params", "active_params")
"""The constraints that grow with each size: a plane cannot model others, and the sampler learns them by itself."""

Chance = Callable[[Mapping[str, Any]], float]
"""Of a point to fit, from 0 to 1."""

_LEAST_TRIALS = 10
"""As many as TPE itself wants to see before it proposes anything."""

_NEWEST = 200
"""Of either kind: enough for a plane, and the price of a proposal does not grow with the study."""

_RIDGE = 0.1
"""Keeps weights finite where a plane separates all trials, and near 0 for parameters without influence."""

_STEPS = 15
_CLOSE_ENOUGH = 1e-4


def chance_to_fit(
    trials: Sequence[FrozenTrial], space: Distributions, is_whole: Callable[[Mapping[str, Any]], bool] | None = None
) -> Chance | None:
    """Learnt from `trials`; None while they are few, or all of one kind.

    `is_whole` judges whether parameters are all that a point has; without it a point has all of the space's.
    """
    missed = [trial for trial in trials if has_missed(trial)][-_NEWEST:]
    if not missed:
        return None
    fitted = [trial for trial in trials if _has_fitted(trial)][-_NEWEST:]
    has_all = is_whole or (lambda params: space.keys() <= params.keys())
    whole = [trial for trial in (*missed, *fitted) if has_all(trial.params)]
    seen = [trial.params for trial in whole]
    did_fit = [not has_missed(trial) for trial in whole]
    if not any(did_fit) or all(did_fit) or len(seen) < _LEAST_TRIALS:
        return None
    axes = {name: _axis(domain) for name, domain in space.items()}
    weights = _regression(np.array([_features(axes, params) for params in seen]), np.array(did_fit, dtype=float))

    def chance(params: Mapping[str, Any]) -> float:
        return float(_logistic(np.array(_features(axes, params)) @ weights))

    return chance


def has_missed(trial: FrozenTrial) -> bool:
    """Whether an ended trial did not fit."""
    # Most trials have no attribute at all, which is found out sooner.
    if not trial.system_attrs or not trial.state.is_finished():
        return False
    constraints = trial.constraints
    return any(constraints.get(name, 0.0) > 0 for name in _SIZES)


def _has_fitted(trial: FrozenTrial) -> bool:
    """One that the pruner ended had enough memory to train; a failed one is no evidence."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and not has_missed(trial)


_Axis = tuple[int, Callable[[Any], list[float]]]
"""A parameter's value as so many features, each within -1 and 1."""


def _axis(domain: BaseDistribution) -> _Axis:
    if isinstance(domain, CategoricalDistribution):
        return _axis_of_choices(domain)
    low, high = float(domain.low), float(domain.high)  # type: ignore[attr-defined]
    is_size = isinstance(domain, IntDistribution) and low > 0
    return _scaled(low, high, in_log=is_size or domain.log)  # type: ignore[attr-defined]


def _axis_of_choices(domain: CategoricalDistribution) -> _Axis:
    """Choices that are all sizes have an order; of others each is a feature of its own."""
    choices = domain.choices
    if all(isinstance(choice, int | float) and not isinstance(choice, bool) and choice > 0 for choice in choices):
        sizes = [float(choice) for choice in choices if choice is not None]
        return _scaled(min(sizes), max(sizes), in_log=True)
    return len(choices), lambda value: [float(index == domain.to_internal_repr(value)) for index in range(len(choices))]


def _scaled(low: float, high: float, *, in_log: bool) -> _Axis:
    form: Callable[[float], float] = math.log if in_log else float
    start, length = form(low), form(high) - form(low)
    # A person's point may be out of bounds, where a scale may have no value.
    return 1, lambda value: [2 * (form(min(max(value, low), high)) - start) / length - 1 if length else 0.0]


def _features(axes: Mapping[str, _Axis], params: Mapping[str, Any]) -> list[float]:
    """The features of an inactive parameter are 0: it adds nothing."""
    return [
        1.0,
        *_joined(axis(params[name]) if name in params else [0.0] * count for name, (count, axis) in axes.items()),
    ]


def _joined(parts: Iterable[list[float]]) -> Iterable[float]:
    for part in parts:
        yield from part


def _regression(seen: NDArray[np.float64], did_fit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of a logistic regression by Newton's method; the first is the constant and not held back."""
    weights = np.zeros(seen.shape[1])
    ridge = np.full(seen.shape[1], _RIDGE)
    ridge[0] = 1e-6
    for _ in range(_STEPS):
        chances = _logistic(seen @ weights)
        slope = seen.T @ (did_fit - chances) - ridge * weights
        curvature = (seen.T * (chances * (1 - chances))) @ seen + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        weights = weights + step
        if np.abs(step).max() < _CLOSE_ENOUGH:
            break
    return weights


def _logistic(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(score, -30, 30)))
