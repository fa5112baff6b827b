"""A search space as a unit cube: what distances between points mean, and which points there are. Pure.

Numbers lie on their own scale, logarithmic ones on that. Choices that are all numbers, written in their order, are an
order as well: by rank, since people write sizes as they want them spaced. Other choices are only equal or different.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Points = NDArray[np.float64]
"""One row for each point, one column for each parameter; a choice without an order is its index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One parameter. `count` is how many values it has; None where it is continuous."""

    domain: BaseDistribution
    low: float
    high: float
    step: float | None
    log: bool
    count: int | None
    is_ordered: bool

    def encode(self, value: Any) -> float:
        """A value as a coordinate, from 0 to 1 within the bounds; not for values that the domain cannot hold."""
        if isinstance(self.domain, CategoricalDistribution):
            index = self.domain.to_internal_repr(value)
            return index / (len(self.domain.choices) - 1) if self.is_ordered else index
        return self._unit(float(value))

    def decode(self, coordinate: float) -> Any:
        """The value at a coordinate."""
        if isinstance(self.domain, CategoricalDistribution):
            index = coordinate * (len(self.domain.choices) - 1) if self.is_ordered else coordinate
            return self.domain.choices[round(index)]
        number = self._number(coordinate)
        return round(number) if isinstance(self.domain, IntDistribution) else number

    def snapped(self, coordinates: Points) -> Points:
        """The coordinates of the nearest values."""
        if not self.is_ordered:
            return coordinates
        inside = np.clip(coordinates, 0.0, 1.0)
        if self.count is None:
            return inside
        if isinstance(self.domain, CategoricalDistribution) or not self.log:
            return np.round(inside * (self.count - 1)) / (self.count - 1)
        numbers = np.round(np.exp(math.log(self.low) + inside * self._log_width))
        return (np.log(numbers) - math.log(self.low)) / self._log_width

    def spread(self, shares: Points) -> Points:
        """Coordinates for shares of the axis, from 0 up to 1 evenly: each value gets its equal part."""
        if self.count is None:
            return shares
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return self.snapped((low + shares * (high - low) - math.log(self.low)) / self._log_width)
        index = np.minimum(np.floor(shares * self.count), self.count - 1)
        return cast(Points, index / (self.count - 1) if self.is_ordered else index)

    def moved(self, coordinates: Points, rng: np.random.RandomState) -> Points:
        """Other values, most of them near; of choices without an order any."""
        size = coordinates.size
        if not self.is_ordered:
            count = self.count or 1
            return (coordinates + rng.randint(1, count, size)) % count
        jump = rng.normal(0.0, rng.choice([0.02, 0.1, 0.3], size), size)
        if self.count is not None and not self.log:
            least = 1 / (self.count - 1)
            jump = np.where(np.abs(jump) < least, np.copysign(least, jump), jump)
        # Reflected at the bounds: clipped, half of what is near them would be the bound itself.
        return self.snapped(1 - np.abs(1 - np.abs(coordinates + jump) % 2))

    @property
    def _log_width(self) -> float:
        """The quotient of the bounds may be more than a double holds."""
        return math.log(self.high) - math.log(self.low)

    def _unit(self, number: float) -> float:
        if self.log:
            return (math.log(number) - math.log(self.low)) / self._log_width
        return (number - self.low) / (self.high - self.low)

    def _number(self, coordinate: float) -> float:
        if self.log:
            return min(max(math.exp(math.log(self.low) + coordinate * self._log_width), self.low), self.high)
        if self.step is not None:
            # In floating point three steps of 0.1 are more than 0.3.
            return min(self.low + self.step * round(coordinate * (self.high - self.low) / self.step), self.high)
        return min(max(self.low + coordinate * (self.high - self.low), self.low), self.high)


class Cube:
    """A space of parameters that have more than one value each."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.names = list(space)
        self.axes = [_axis(domain) for domain in space.values()]
        counts = [axis.count for axis in self.axes]
        self.size = None if None in counts else math.prod(count for count in counts if count is not None)
        """How many points there are; None where a parameter is continuous."""

    def encode(self, points: Iterable[Mapping[str, Any]]) -> Points:
        """Points that have all parameters, within the bounds or not."""
        rows = [
            [axis.encode(point[name]) for name, axis in zip(self.names, self.axes, strict=True)] for point in points
        ]
        return np.array(rows, dtype=float).reshape(-1, len(self.axes))

    def decode(self, row: Sequence[float] | Points) -> dict[str, Any]:
        """The parameters of one point."""
        return {name: axis.decode(float(at)) for name, axis, at in zip(self.names, self.axes, row, strict=True)}

    def spread(self, shares: Points) -> Points:
        """Points for rows of shares from 0 up to 1."""
        return np.column_stack([axis.spread(shares[:, column]) for column, axis in enumerate(self.axes)])

    def moved(self, points: Points, rng: np.random.RandomState) -> Points:
        """Of each point a neighbour, in which one or a few parameters have another value."""
        width = len(self.axes)
        changed = rng.random_sample(points.shape) < 1.0 / width
        changed[np.arange(len(points)), rng.randint(0, width, len(points))] = True
        result = points.copy()
        for column, axis in enumerate(self.axes):
            rows = changed[:, column]
            result[rows, column] = axis.moved(points[rows, column], rng)
        return result

    def squared_gaps(self, points: Points) -> NDArray[np.float64]:
        """By parameter: of each point from each other one; 1 between different choices without an order."""
        gaps = points.T[:, :, None] - points.T[:, None, :]
        for column, axis in enumerate(self.axes):
            if not axis.is_ordered:
                gaps[column] = np.abs(gaps[column]) > 0.5
        return gaps**2

    def stretched(self, points: Points, weights: NDArray[np.float64]) -> Points:
        """Points of a space in which squared distances are these, weighted by parameter and added up."""
        columns = []
        for column, axis in enumerate(self.axes):
            if axis.is_ordered:
                columns.append(points[:, [column]] * math.sqrt(weights[column]))
            else:
                equal = points[:, [column]] == np.arange(axis.count or 0)
                columns.append(equal * math.sqrt(weights[column] / 2))
        return np.hstack(columns)


def keys_of(points: Points) -> list[bytes]:
    """Of each row something that only equal points share, whatever rounding does."""
    return [row.tobytes() for row in np.round(points, 9) + 0.0]


def _axis(domain: BaseDistribution) -> Axis:
    if isinstance(domain, CategoricalDistribution):
        count = len(domain.choices)
        return Axis(
            domain=domain, low=0, high=1, step=None, log=False, count=count, is_ordered=_are_ordered(domain.choices)
        )
    assert isinstance(domain, FloatDistribution | IntDistribution)
    step = domain.step if not (isinstance(domain, IntDistribution) and domain.log) else 1
    return Axis(
        domain=domain,
        low=domain.low,
        high=domain.high,
        step=step,
        log=domain.log,
        count=None if step is None else round((domain.high - domain.low) / step) + 1,
        is_ordered=True,
    )


def _are_ordered(choices: Sequence[Any]) -> bool:
    if len(choices) < 3 or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in choices):
        return False
    return list(choices) in (sorted(choices), sorted(choices, reverse=True))
