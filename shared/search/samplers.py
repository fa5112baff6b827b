"""From our specs to Optuna's objects: domains, samplers and pruners by the guide's names.

Names and options were checked when the spec was made (`strategy`); nothing here refuses them again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TypeVar

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PercentilePruner
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler

from highnoon.shared.domain.param import Categorical, Float, Int, Param, SearchSpace
from highnoon.shared.domain.strategy import PrunerSpec, SamplerSpec

Distributions = dict[str, BaseDistribution]
T = TypeVar("T")


def distributions(space: SearchSpace) -> Distributions:
    """Optuna's domain for each of ours."""
    return {name: _distribution(param) for name, param in space.items()}


def build_sampler(spec: SamplerSpec) -> BaseSampler:
    """The sampler that a spec names. A grid has none; what its enqueued trials leave open is drawn at random."""
    return _built(_SAMPLERS, spec) if spec.name != "grid" else RandomSampler()


def build_pruner(spec: PrunerSpec) -> BasePruner:
    """The pruner that a spec names."""
    return _built(_PRUNERS, spec)


_SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": TPESampler,
    # CMA-ES draws categorical parameters at random, and would warn of it at every trial.
    "cmaes": lambda **options: CmaEsSampler(warn_independent_sampling=False, **options),
    "random": RandomSampler,
}

_PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "median": MedianPruner,
    "hyperband": HyperbandPruner,
    "percentile": PercentilePruner,
    "none": NopPruner,
}


def _built(makers: Mapping[str, Callable[..., T]], spec: SamplerSpec | PrunerSpec) -> T:
    with warnings.catch_warnings():
        # Options that Optuna calls experimental were chosen by name.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return makers[spec.name](**spec.options)


def _distribution(param: Param) -> BaseDistribution:
    match param:
        case Float(low=low, high=high, step=step, log=log):
            return FloatDistribution(low, high, step=step, log=log)
        case Int(low=low, high=high, step=step, log=log):
            return IntDistribution(low, high, step=step, log=log)
        case Categorical(choices=choices):
            return CategoricalDistribution(choices)
