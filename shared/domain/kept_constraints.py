"""Whether a study's points can keep its parameter constraints: judged once, when a person asks for the study. Pure.

No part of StudySpec: a stored study is read again and again, also where no point keeps them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

from highnoon.shared.domain.conditions import is_active, parents_first
from highnoon.shared.domain.errors import Problem
from highnoon.shared.domain.grid import grid
from highnoon.shared.domain.param import Categorical, Float, Int, Param, SearchSpace, written_form
from highnoon.shared.domain.param_constraints import ParamConstraint
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params, ParamValue

_DRAWS = 20_000
"""Four times as many as for a trial: what is accepted here seldom ends a study."""


def kept_constraints_problems(spec: StudySpec) -> list[Problem]:
    """Names each constraint that no point keeps; all of them together where each alone can be kept."""
    constraints = spec.point_constraints
    impossible = [one for one in constraints if not _is_kept(spec, [one])]
    if not impossible and len(constraints) > 1 and not _is_kept(spec, constraints):
        return [_problem(spec, constraints, "all of them", list(map(str, constraints)))]
    return [_problem(spec, [one], "it", str(one)) for one in impossible]


def _is_kept(spec: StudySpec, constraints: Sequence[ParamConstraint]) -> bool:
    return any(all(constraint.holds(point) for constraint in constraints) for point in _points(spec))


def _points(spec: StudySpec) -> Iterable[Params]:
    if spec.sampler.is_exhaustive:
        return grid(spec.search_space, spec.sampler.options.get("points"))
    rng = random.Random(0)  # noqa: S311 - no secret
    names = parents_first(spec.search_space)
    return (_drawn(spec.search_space, names, rng) for _ in range(_DRAWS))


def _problem(spec: StudySpec, constraints: Sequence[ParamConstraint], what: str, value: object) -> Problem:
    message = f"no point was found that keeps {what}, in {_DRAWS:,} draws"
    if spec.sampler.is_exhaustive:
        message = f"no point of the grid keeps {what}"
    names = dict.fromkeys(name for constraint in constraints for name in constraint.names)
    bounds = ", ".join(f"{name} is {written_form(spec.search_space[name])}" for name in names)
    return Problem(key="param_constraints", message=message, value=value, hint=f"Here {bounds}.")


def _drawn(space: SearchSpace, names: Sequence[str], rng: random.Random) -> Params:
    point: Params = {}
    for name in names:
        if is_active(space[name], point):
            point[name] = _value(space[name], rng)
    return point


def _value(param: Param, rng: random.Random) -> ParamValue:
    match param:
        case Categorical(choices=choices):
            return rng.choice(choices)
        case Int(low=low, high=high, log=True):
            return min(max(round(math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))), low), high)
        case Int(low=low, high=high, step=step):
            return rng.randrange(low, high + 1, step)
        case Float(low=low, high=high, log=True):
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        case Float(low=low, high=high, step=step) if step is not None:
            return low + step * rng.randrange(round((high - low) / step) + 1)
        case Float(low=low, high=high):
            return rng.uniform(low, high)
