"""From our specs to Optuna's objects: domains, samplers and pruners by the guide's names.

Names and options were checked when the spec was made (`strategy`); nothing here refuses them again.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import optuna.samplers
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler
from optuna.samplers._ga import BaseGASampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from highnoon.shared.domain.param import Categorical, Float, Int, Param, SearchSpace
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.strategy import modules_of
from highnoon.shared.runtime.extras import require
from highnoon.shared.search.asha import AshaPruner, Hyperband
from highnoon.shared.search.auto import AutoSampler
from highnoon.shared.search.plugged import PluggedPruner, PluggedSampler
from highnoon.shared.search.quasi_random import QuasiRandomSampler
from highnoon.shared.search.tpe import CachingTPESampler

Distributions = dict[str, BaseDistribution]
T = TypeVar("T")


def distributions(space: SearchSpace) -> Distributions:
    """Optuna's domain for each of ours."""
    return {name: _distribution(param) for name, param in space.items()}


def build_sampler(spec: SamplerSpec, space: Distributions, seed: int | None = None) -> BaseSampler:
    """The sampler that a spec names, for a study of that space and seed. Raises MissingExtra.

    An exhaustive one has none; what its enqueued trials leave open is drawn at random.
    """
    if spec.plugin is not None:
        return PluggedSampler(spec.name, spec.options)
    require(modules_of(spec))
    if spec.is_exhaustive:
        return RandomSampler()
    options = dict(spec.options)
    if spec.name in ("auto", "qmc"):
        options |= {"space": space, "seed": seed}
    return _built(_SAMPLERS, spec.name, options)


def build_pruner(spec: PrunerSpec, steps: int | None = None) -> BasePruner | None:
    """The pruner that a spec names. Raises MissingExtra.

    `steps` is how many a whole trial has; None for a pruner that depends on them while they are not known.
    """
    if spec.plugin is not None:
        return PluggedPruner(spec.name, spec.options)
    require(modules_of(spec))
    if steps is None and depends_on_steps(spec):
        return None
    options = dict(spec.options)
    match spec.name:
        case "patient":
            wrapped = options.pop("wrapped", None)
            inner = None if wrapped is None else build_pruner(PrunerSpec.model_validate(wrapped), steps)
            return _built(_PRUNERS, spec.name, {**options, "wrapped_pruner": inner})
        case "asha":
            options = {"grace_period": max((steps or 1) // 100, 1), **options}
        case "hyperband":
            options = {"max_resource": max(steps or 1, options.get("min_resource", 1)), **options}
    return _built(_PRUNERS, spec.name, options)


def depends_on_steps(spec: PrunerSpec) -> bool:
    """Whether the pruner's rungs follow from how many steps a whole trial has."""
    missing = {"asha": "grace_period", "hyperband": "max_resource"}.get(spec.name)
    wrapped = spec.options.get("wrapped")
    is_inner = wrapped is not None and depends_on_steps(PrunerSpec.model_validate(wrapped))
    return is_inner or (missing is not None and missing not in spec.options)


class _TwoParents(BaseGASampler):
    """Draws at random where a generation has a single parent: bounds that were narrowed may leave no other one.

    A crossover needs two, and Optuna's raises ValueError.
    """

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """None, or at least two."""
        parents = super().get_parent_population(study, generation)
        return parents if len(parents) > 1 else []


# With the names of Optuna's classes, which are in the attributes of trials: either goes on with what the other began.
class NSGAIISampler(_TwoParents, optuna.samplers.NSGAIISampler):
    """NSGA-II."""


class NSGAIIISampler(_TwoParents, optuna.samplers.NSGAIIISampler):
    """NSGA-III."""


class ConstrainedCmaEsSampler(CmaEsSampler):
    """CMA-ES, for which a trial that breaks a constraint is worse than all that keep them, by how far it misses.

    It goes by the order of a generation only, so that what the value is does not matter. Optuna's ignores constraints.
    """

    def _get_trials(self, study: Study) -> list[FrozenTrial]:
        trials = super()._get_trials(study)
        misses = [sum(max(miss, 0.0) for miss in trial.constraints.values()) for trial in trials]
        if not any(misses):
            return trials
        sign = 1.0 if study.direction is StudyDirection.MINIMIZE else -1.0
        kept = (sign * trial.values[0] for trial, miss in zip(trials, misses, strict=True) if not miss)
        worst = max(kept, default=0.0)
        return [
            _with_value(trial, sign * (worst + miss)) if miss else trial
            for trial, miss in zip(trials, misses, strict=True)
        ]


def _with_value(trial: FrozenTrial, value: float) -> FrozenTrial:
    one = copy.copy(trial)
    one.value = value
    return one


_SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "auto": AutoSampler,
    "tpe": CachingTPESampler,
    "gp": lambda **options: GPSampler(warn_independent_sampling=False, **options),
    # CMA-ES draws categorical parameters at random, and would warn of it at every trial.
    "cmaes": lambda **options: ConstrainedCmaEsSampler(warn_independent_sampling=False, **options),
    "qmc": QuasiRandomSampler,
    "nsga2": NSGAIISampler,
    "nsga3": NSGAIIISampler,
    "random": RandomSampler,
    "pbt": lambda **_: RandomSampler(),  # what `Population` leaves open
}

_PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "median": MedianPruner,
    "percentile": PercentilePruner,
    "hyperband": Hyperband,
    "asha": AshaPruner,
    "wilcoxon": WilcoxonPruner,
    "threshold": ThresholdPruner,
    "patient": PatientPruner,
    "none": NopPruner,
}


def _built(makers: Mapping[str, Callable[..., T]], name: str, options: Mapping[str, Any]) -> T:
    with warnings.catch_warnings():
        # Options that Optuna calls experimental were chosen by name.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return makers[name](**options)


def _distribution(param: Param) -> BaseDistribution:
    match param:
        case Float(low=low, high=high, step=step, log=log):
            return FloatDistribution(low, high, step=step, log=log)
        case Int(low=low, high=high, step=step, log=log):
            return IntDistribution(low, high, step=step, log=log)
        case Categorical(choices=choices):
            return CategoricalDistribution(choices)
