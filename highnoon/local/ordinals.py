"""Which point is next for the trials of one call in this process."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import chain
from typing import Any

from highnoon.shared.domain.states import CAUSE, ENDING, Cause, Ending, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.search.grid_points import Grid
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import FreeOrdinal, OrdinalSource

_random = random.SystemRandom()
"""Not the module's own generator: an objective that seeds it would make two processes choose the same."""

_MOST_TRIES = 3
"""To choose a point whose randomness follows from how many trials have begun: a model takes its time for each."""


def ordinal_source(study: OptunaStudy, spec: StudySpec) -> OrdinalSource:
    """A function that gives the ordinal of the next trial, as a ticket has one in a cluster.

    For a sampler it is how many trials have begun: its seed follows from it, and its place in a sequence. For a grid it
    is a point that no trial has visited; beyond the last point it is the ordinal at which the study is exhausted.

    Other processes may add to the same study at the same time. Where two of them would take the same point, an ordinal
    is free only until another trial has begun. A sampler with a seed that has chosen in vain a few times draws its
    ordinal at random, for a point of its own.
    """
    grid = Grid.of(spec)
    if grid is None:

        def by_count(tries: int) -> FreeOrdinal:
            count = _begun(study.optuna_study.get_trials(deepcopy=False))
            if spec.sampler.needs_space or (spec.seed is not None and tries < _MOST_TRIES):
                return FreeOrdinal(ordinal=count, begun=count)
            return FreeOrdinal(ordinal=count if spec.seed is None else _random.randrange(count, 2**31))

        return by_count
    size = len(grid)
    # In the grid's own order, which the seed of brute_force shuffles; without a seed it begins anywhere.
    is_unseeded = spec.sampler.name == "brute_force" and spec.seed is None
    start = _random.randrange(max(size, 1)) if is_unseeded else 0

    def unvisited(_tries: int) -> FreeOrdinal:
        trials = study.optuna_study.get_trials(deepcopy=False)
        visited = {_point_key(trial.params) for trial in trials if not _is_to_be_repeated(trial.user_attrs)}
        begun = _begun(trials)
        first = (start + begun) % max(size, 1)
        ordinals = chain(range(first, size), range(first))
        ordinal = next((one for one in ordinals if _point_key(grid.point(one).params) not in visited), size)
        return FreeOrdinal(ordinal=ordinal, begun=begun)

    return unvisited


def _begun(trials: Iterable[Any]) -> int:
    return sum(trial.state.name != TrialState.WAITING for trial in trials)


def _is_to_be_repeated(attrs: dict[str, object]) -> bool:
    """A trial that ended by no fault of its own: interrupted, or lost with its process."""
    return attrs.get(CAUSE) == Cause.INTERRUPTED or attrs.get(ENDING) == Ending.LOST


def _point_key(params: Params) -> tuple[object, ...]:
    return tuple(sorted(params.items()))
