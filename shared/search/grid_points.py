"""A grid's points by ordinal. Not sampled: the ticket's ordinal is the point, so none comes twice or is left out.

The trials carry the attributes of Optuna's own GridSampler, so that an ordinary Optuna script with the same values
takes our points for visited.
"""

from __future__ import annotations

import math

import numpy as np

from highnoon.shared.domain.errors import InvalidInput, SpaceExhausted
from highnoon.shared.domain.grid import grid_problems, grid_values
from highnoon.shared.domain.space import SearchSpace
from highnoon.shared.domain.trial import Params
from highnoon.shared.search.presampling import Sampled


class Grid:
    """The points that a search space spans, in the order of `shared.domain.grid.grid`."""

    def __init__(self, space: SearchSpace, points: int | None = None) -> None:
        """Raises InvalidInput when the space spans no finite grid."""
        problems = grid_problems(space, points)
        if problems:
            raise InvalidInput("search_space", problems)
        self._names = list(space)
        self._values = {name: list(grid_values(space[name], points) or ()) for name in sorted(space)}
        self._size = math.prod(map(len, self._values.values()))
        self._optuna_ids: list[int] = []

    def __len__(self) -> int:
        return self._size

    def point(self, ordinal: int) -> Sampled:
        """`grid(space, points)[ordinal]`, without building the others. Raises SpaceExhausted beyond the last one."""
        if not 0 <= ordinal < self._size:
            raise SpaceExhausted(f"the grid has {self._size} points, and all of them have been asked for")
        params: Params = {}
        rest = ordinal
        for name, values in reversed(self._values.items()):
            rest, index = divmod(rest, len(values))
            params[name] = values[index]
        return Sampled(
            params={name: params[name] for name in self._names},
            system_attrs={"grid_id": self._optuna_id(ordinal), "search_space": self._values},
        )

    def _optuna_id(self, ordinal: int) -> int:
        """GridSampler shuffles the same product by seed 0 and counts in that order; a list shuffles by its length."""
        if not self._optuna_ids:
            shuffled = list(range(self._size))
            np.random.RandomState(0).shuffle(shuffled)
            self._optuna_ids = [0] * self._size
            for optuna_id, original in enumerate(shuffled):
                self._optuna_ids[original] = optuna_id
        return self._optuna_ids[ordinal]
