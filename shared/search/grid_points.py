"""The points of an exhaustive search: every combination of a finite space, each by the ordinal of its ticket."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from highnoon.shared.domain.errors import InvalidInput, SpaceExhausted
from highnoon.shared.domain.grid import grid, grid_problems, grid_values, is_listed
from highnoon.shared.domain.param import SearchSpace
from highnoon.shared.domain.param_constraints import ParamConstraint
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.search.presampling import Sampled


class Grid:
    """A grid's points by ordinal, in the order of `shared.domain.grid.grid`.

    Not sampled: the ticket's ordinal is the point, so none comes twice or is left out.
    """

    def __init__(
        self,
        space: SearchSpace,
        points: int | None = None,
        shuffled_by: int | None = None,
        constraints: Sequence[ParamConstraint] = (),
    ) -> None:
        """Raises InvalidInput when the space spans no finite grid. `shuffled_by` is the seed of another order."""
        problems = grid_problems(space, points, constraints)
        if problems:
            raise InvalidInput("search_space", problems)
        self._names = list(space)
        self._values = {name: list(grid_values(space[name], points) or ()) for name in sorted(space)}
        self._size = math.prod(map(len, self._values.values()))
        # Where some combinations are none, the others are counted by building them.
        self._listed = grid(space, points, constraints) if is_listed(space, constraints) else None
        if self._listed is not None:
            self._size = len(self._listed)
        self._order = None if shuffled_by is None else np.random.RandomState(shuffled_by).permutation(self._size)

    @classmethod
    def of(cls, spec: StudySpec) -> Grid | None:
        """The grid of a study whose sampler is exhaustive."""
        if not spec.sampler.is_exhaustive:
            return None
        shuffled_by = (spec.seed or 0) if spec.sampler.name == "brute_force" else None
        return cls(spec.search_space, spec.sampler.options.get("points"), shuffled_by, spec.point_constraints)

    def __len__(self) -> int:
        return self._size

    def point(self, ordinal: int) -> Sampled:
        """The point of this ordinal, shuffled or not. Raises SpaceExhausted beyond the last one."""
        if not 0 <= ordinal < self._size:
            raise SpaceExhausted(
                f"the grid has {self._size} points, and all of them are taken"
                if self._size
                else "no point of the grid keeps the constraints"
            )
        if self._order is not None:
            ordinal = int(self._order[ordinal])
        if self._listed is not None:
            return Sampled(params=dict(self._listed[ordinal]))
        params: Params = {}
        rest = ordinal
        for name, values in reversed(self._values.items()):
            rest, index = divmod(rest, len(values))
            params[name] = values[index]
        return Sampled(params={name: params[name] for name in self._names})
