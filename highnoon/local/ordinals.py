"""Which point is next for the trials of one call in this process."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain

from highnoon.local.trial import INTERRUPTED
from highnoon.shared.domain.states import CAUSE, ENDING, Ending, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.search.grid_points import Grid
from highnoon.shared.store.optuna_study import OptunaStudy

_random = random.SystemRandom()
"""Not the module's own generator: an objective that seeds it would make two processes choose the same."""


def ordinal_source(study: OptunaStudy, spec: StudySpec) -> Callable[[], int]:
    """A function that gives the ordinal of the next trial, as a ticket has one in a cluster.

    For a sampler it is how many trials have begun: its seed follows from it, and its place in a sequence. For a grid it
    is a point that no trial has visited; beyond the last point it is the ordinal at which the study is exhausted. Other
    processes may add to the same study at the same time, without a lock: every point is visited, and two processes that
    start within the same milliseconds may take the same one.
    They choose at random so that this stays rare.
    """
    grid = Grid.of(spec)
    if grid is None:
        return lambda: sum(
            trial.state.name != TrialState.WAITING for trial in study.optuna_study.get_trials(deepcopy=False)
        )
    size = len(grid)

    def unvisited() -> int:
        trials = study.optuna_study.get_trials(deepcopy=False)
        visited = {_point_key(trial.params) for trial in trials if not _is_to_be_repeated(trial.user_attrs)}
        first = _random.randrange(max(size, 1))
        draws = (_random.randrange(size) for _ in range(min(size, 100)))
        ordinals = chain(draws, range(first, size), range(first))
        return next((one for one in ordinals if _point_key(grid.point(one).params) not in visited), size)

    return unvisited


def _is_to_be_repeated(attrs: dict[str, object]) -> bool:
    """A trial that ended by no fault of its own: interrupted, or lost with its process."""
    return attrs.get(CAUSE) == INTERRUPTED or attrs.get(ENDING) == Ending.LOST


def _point_key(params: Params) -> tuple[object, ...]:
    return tuple(sorted(params.items()))
