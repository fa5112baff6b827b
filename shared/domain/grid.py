"""The grid that a search space spans: every combination of its values, counted before it is built.

Pure. Which trial gets which combination is decided by `samplers`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.scalars import exact
from highnoon.shared.domain.space import Categorical, Int, LogUniform, Param, SearchSpace, Uniform, written_form
from highnoon.shared.domain.trial import Params, ParamValue

GRID_LIMIT = 1_000_000


def grid(space: SearchSpace, points: int | None = None) -> list[Params]:
    """Every combination, always in the same order. Raises InvalidInput with what `grid_problems` finds."""
    problems = grid_problems(space, points)
    if problems:
        raise InvalidInput("search_space", problems)
    # Sorted, because a database may hand the space back with its names in another order.
    names = sorted(space)
    values = [grid_values(space[name], points) or () for name in names]
    return [dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)]


def grid_problems(space: SearchSpace, points: int | None = None) -> list[Problem]:
    """Why there is no grid: continuous ranges without `points`, or more than GRID_LIMIT combinations."""
    sizes = {name: _size(param, points) for name, param in space.items()}
    endless = [_endless(name, space[name]) for name, size in sizes.items() if size is None]
    total = math.prod(size for size in sizes.values() if size is not None)
    return endless if total <= GRID_LIMIT else [*endless, _too_large(total)]


def grid_values(param: Param, points: int | None = None) -> tuple[ParamValue, ...] | None:
    """All values, or `points` evenly spaced ones of a continuous range; None for such a range without `points`."""
    size = _size(param, points)
    if size is None:
        return None
    match param:
        case Categorical(choices=choices):
            return choices
        case Int(low=low, high=high, step=step):
            return tuple(range(low, high + 1, step))
        case Uniform(low=low, step=step) if step is not None:
            return tuple(float(exact(low) + i * exact(step)) for i in range(size))
        case Uniform(low=low, high=high):
            return _spaced(low, high, size, lambda share: low + (high - low) * share)
        case LogUniform(low=low, high=high):
            return _spaced(
                low, high, size, lambda share: math.exp(math.log(low) * (1 - share) + math.log(high) * share)
            )


def _size(param: Param, points: int | None) -> int | None:
    match param:
        case Categorical(choices=choices):
            return len(choices)
        case Int(low=low, high=high, step=step):
            return (high - low) // step + 1
        case Uniform(low=low, high=high, step=step) if step is not None:
            return int((exact(high) - exact(low)) // exact(step)) + 1
        case Uniform(low=low, high=high) | LogUniform(low=low, high=high):
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
        hint="Set points under [sampler] (of grid), give a uniform range a step, or write a categorical.",
    )


def _too_large(total: int) -> Problem:
    return Problem(
        key="search_space",
        message=f"spans a grid of {total:,} combinations; at most {GRID_LIMIT:,} are possible",
        hint="Use fewer values or parameters, or another sampler.",
    )
