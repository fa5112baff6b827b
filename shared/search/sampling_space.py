"""A study's search space as samplers need it: Optuna's domains, which of them a point has, and which points may be run.

A study may change its space: earlier trials are shown to samplers as the space of now would have them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from highnoon.shared.domain.conditions import active_part, is_active, is_conditional, parents_first
from highnoon.shared.domain.param import UNSET, SearchSpace
from highnoon.shared.domain.param_constraints import ParamConstraint, broken
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.trial import Params, ParamValue
from highnoon.shared.search.samplers import Distributions, distributions


class SamplingSpace:
    """`domains` are in the order in which values are chosen: a parameter after those that it depends on."""

    def __init__(self, space: SearchSpace, constraints: Sequence[ParamConstraint] = ()) -> None:
        self._params: SearchSpace = {name: space[name] for name in parents_first(space)}
        self.domains: Distributions = distributions(self._params)
        self.constraints = tuple(constraints)
        self._defaults = {name: param.default for name, param in self._params.items() if param.default is not UNSET}
        # Any value of a choice is within.
        self._bounds = {name: (getattr(d, "low", -inf), getattr(d, "high", inf)) for name, d in self.domains.items()}
        self._equal: Mapping[str, BaseDistribution] = {}

    def as_stored(self, values: Mapping[str, Any]) -> Params:
        """The values that belong to the space, in the type that their domain stores, in or out of its bounds.

        Inactive parameters are left out.
        Raises ValueError for what a domain cannot hold: text for a number, infinity, a choice that there is not.
        """
        stored: Params = {
            name: _stored(name, domain, values[name]) for name, domain in self.domains.items() if name in values
        }
        return active_part(self._params, stored)

    def as_repeated(self, values: Mapping[str, Any]) -> Params:
        """The same of an earlier trial: parameters that came later have their default."""
        return self.as_stored({**self._defaults, **values})

    def without_constraints(self) -> SamplingSpace:
        """The same space, in which every point may be run."""
        free = copy.copy(self)
        free.constraints = ()
        return free

    def is_active(self, name: str, point: Mapping[str, Any]) -> bool:
        """Whether a point with these values of the parameters before it has this one."""
        return is_active(self._params[name], point)

    def completed(self, known: Mapping[str, ParamValue]) -> Params | None:
        """The point that follows from what is known, with single values filled in; None where more must be chosen."""
        point: Params = {}
        for name, domain in self.domains.items():
            if not self.is_active(name, point):
                continue
            if name in known:
                point[name] = known[name]
            elif domain.single():
                point[name] = only_value(domain)
            else:
                return None
        return point

    def is_covered_by(self, params: Mapping[str, Any]) -> bool:
        """Whether these are all that a point must have."""
        return all(name in params or not self.is_active(name, params) for name in self.domains)

    def broken_by(self, point: Mapping[str, Any]) -> list[str]:
        """The constraints that a point breaks, as they were written."""
        return broken(self.constraints, point)

    def translated(self, trial: FrozenTrial) -> FrozenTrial | None:
        """An earlier trial as this space would have it; None for one of which a sampler could not use all values.

        Another program may have joined the study with domains of its own: a text where we have a number would end
        every later proposal with an error. Points beyond the bounds of now say nothing about what is within them.
        """
        known: Params = {}
        for name, domain in self.domains.items():
            if name in trial.params:
                try:
                    inner = domain.to_internal_repr(trial.params[name])
                except (ValueError, TypeError):
                    return None
                # Also with the domains of now: what a person enqueues in Optuna may be anywhere. Steps may have
                # changed: between two of them a value is as good as on one.
                low, high = self._bounds[name]
                if not low <= inner <= high:
                    return None
                known[name] = domain.to_external_repr(inner)
        if self._is_of_now(trial):
            return trial
        params: Params = {}
        for name in self.domains:
            if name in known:
                params[name] = known[name]
            elif name in self._defaults and trial.state.is_finished() and self.is_active(name, params):
                params[name] = self._defaults[name]
        seen = copy.copy(trial)
        # CMA-ES would go on with an optimizer of other dimensions, or give up.
        seen.system_attrs = {key: value for key, value in trial.system_attrs.items() if "cma:" not in key}
        seen.params = params
        seen.distributions = {name: self.domains[name] for name in params}
        return seen

    def _is_of_now(self, trial: FrozenTrial) -> bool:
        found = trial.distributions
        # Trials with the same domains mostly share one mapping of them, and its comparison takes as long as the rest.
        if found is not self._equal:
            if any(self.domains.get(name) != domain for name, domain in found.items()):
                return False
            self._equal = found
        return all(name in found or not self.is_active(name, trial.params) for name in self._defaults)


def _stored(name: str, domain: BaseDistribution, value: Any) -> ParamValue:
    try:
        inner = domain.to_internal_repr(value)
    except OverflowError:  # an int beyond every float
        inner = inf
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not isfinite(inner):
        raise ValueError(f"{name}: must be a finite number")
    stored: ParamValue = domain.to_external_repr(inner)
    return stored


def suited(sampler: SamplerSpec, space: SearchSpace) -> SamplerSpec:
    """The sampler for this space. With conditions TPE learns each group of parameters from the trials that have it.

    `auto` leaves such spaces, and those that only the objective knows, to TPE.
    """
    is_grouped = is_conditional(space)
    if sampler.name == "auto" and (is_grouped or not space):
        sampler = SamplerSpec(name="tpe", options=sampler.options)
    if sampler.name != "tpe" or not is_grouped or sampler.options.get("multivariate") is False:
        return sampler
    return SamplerSpec(name="tpe", options={"group": True, **sampler.options})


def only_value(domain: BaseDistribution) -> ParamValue:
    """Of a domain that has no other."""
    value: ParamValue = domain.choices[0] if isinstance(domain, CategoricalDistribution) else domain.low  # type: ignore[attr-defined]
    return value
