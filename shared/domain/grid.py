"""The grid that a search space spans: every combination of its values, counted before it is built.

With conditions between parameters a combination has the active ones only; those that break a constraint are left out.
Pure. Which trial gets which combination is decided by `presampling`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from highnoon.shared.domain.conditions import is_active, is_conditional, parents_first
from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.param import Categorical, Float, Int, Param, SearchSpace, written_form
from highnoon.shared.domain.param_constraints import ParamConstraint
from highnoon.shared.domain.scalars import exact
from highnoon.shared.domain.trial import Params, ParamValue

GRID_LIMIT = 1_000_000
LISTED_LIMIT = 50_000
"""Where some combinations are none, every process of the study keeps a list of the others."""


def grid(space: SearchSpace, points: int | None = None, constraints: Sequence[ParamConstraint] = ()) -> list[Params]:
    """Every combination, always in the same order. Raises InvalidInput with what `grid_problems` finds."""
    _refuse(grid_problems(space, points, constraints))
    # Sorted, because a database may hand the space back with its names in another order.
    names = parents_first({name: space[name] for name in sorted(space)})
    values = {name: grid_values(space[name], points) or () for name in names}
    return [
        point
        for point in _combinations(space, names, values)
        if all(constraint.holds(point) for constraint in constraints)
    ]


def grid_size(space: SearchSpace, points: int | None = None, constraints: Sequence[ParamConstraint] = ()) -> int:
    """How many combinations `grid` gives. Raises InvalidInput as it does."""
    if is_listed(space, constraints):
        return len(grid(space, points, constraints))
    _refuse(grid_problems(space, points, constraints))
    return math.prod(len(grid_values(param, points) or ()) for param in space.values())


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise InvalidInput("search_space", problems)


def _combinations(space: SearchSpace, names: list[str], values: Mapping[str, Sequence[ParamValue]]) -> Iterator[Params]:
    if not is_conditional(space):
        columns = [values[name] for name in names]
        yield from (dict(zip(names, combination, strict=True)) for combination in itertools.product(*columns))
        return
    active: list[Params] = [{}]
    for name in names:
        active = [
            longer
            for point in active
            for longer in (
                ({**point, name: value} for value in values[name]) if is_active(space[name], point) else (point,)
            )
        ]
    yield from active


def is_listed(space: SearchSpace, constraints: Sequence[ParamConstraint] = ()) -> bool:
    """Whether its points can be found by building all of them only."""
    return bool(constraints) or is_conditional(space)


def grid_problems(
    space: SearchSpace, points: int | None = None, constraints: Sequence[ParamConstraint] = ()
) -> list[Problem]:
    """Why there is no grid: continuous ranges without `points`, or more combinations than there may be."""
    limit = LISTED_LIMIT if is_listed(space, constraints) else GRID_LIMIT
    sizes = {name: _size(param, points) for name, param in space.items()}
    endless = [_endless(name, space[name]) for name, size in sizes.items() if size is None]
    total = _total(space, {name: 1 if size is None else size for name, size in sizes.items()}, points)
    return endless if total <= limit else [*endless, _too_large(total, limit)]


def _total(space: SearchSpace, sizes: Mapping[str, int], points: int | None) -> int:
    """How many combinations there are; of far too many only the part that is counted without building them."""
    names = {parent for param in space.values() for parent in param.when if parent in space}
    deciding = [name for name in parents_first(space) if name in names]
    least = math.prod(sizes[name] for name in deciding)
    if least > GRID_LIMIT:
        return least
    values = {name: grid_values(space[name], points) or () for name in deciding}
    free = [name for name in space if name not in names]
    return sum(
        math.prod(sizes[name] for name in free if is_active(space[name], point))
        for point in _combinations(space, deciding, values)
    )


def grid_values(param: Param, points: int | None = None) -> tuple[ParamValue, ...] | None:
    """All values, or `points` evenly spaced ones of a continuous range; None for such a range without `points`."""
    size = _size(param, points)
    if size is None:
        return None
    match param:
        case Categorical(choices=choices):
            return tuple(choices)
        case Int(low=low, high=high, step=step):
            return tuple(range(low, high + 1, step))
        case Float(low=low, step=step) if step is not None:
            return tuple(float(exact(low) + i * exact(step)) for i in range(size))
        case Float(low=low, high=high, log=True):
            return _spaced(
                low, high, size, lambda share: math.exp(math.log(low) * (1 - share) + math.log(high) * share)
            )
        case Float(low=low, high=high):
            return _spaced(low, high, size, lambda share: low + (high - low) * share)


def _size(param: Param, points: int | None) -> int | None:
    match param:
        case Categorical(choices=choices):
            return len(choices)
        case Int(low=low, high=high, step=step):
            return (high - low) // step + 1
        case Float(low=low, high=high, step=step) if step is not None:
            return int((exact(high) - exact(low)) // exact(step)) + 1
        case Float(low=low, high=high):
            return 1 if low == high else points


def _spaced(low: float, high: float, size: int, at: Callable[[float], float]) -> tuple[float, ...]:
    """Both ends exactly, and between them no value twice or out of bounds, whatever rounding does."""
    inner = (min(max(at(i / (size - 1)), low), high) for i in range(1, size - 1))
    return tuple(dict.fromkeys([low, *inner, high]))[:size]


def _endless(name: str, param: Param) -> Problem:
    return Problem(
        key=f"search_space.{name}",
        message="a grid needs a finite number of values",
        value=written_form(param),
        hint="Give a uniform range a step, write a categorical, or take the sampler grid "
        "and set points under [sampler].",
    )


def _too_large(total: int, limit: int) -> Problem:
    why = "" if limit == GRID_LIMIT else " with conditions or param_constraints"
    return Problem(
        key="search_space",
        message=f"spans a grid of {total:,} combinations; at most {limit:,} are possible{why}",
        hint="Use fewer values or parameters, or another sampler.",
    )
