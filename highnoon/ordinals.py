"""Which ordinal a trial without a ticket gets: `optimize` in process asks by it, as a worker asks by its ticket's.

Other processes may add to the same study at the same time, and nothing is locked between looking and asking. For a
grid this means: every point is visited; two processes that ask within the same milliseconds may both take the same
one, and draw theirs at random so that this stays rare. For a sampler the ordinal only varies the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.search.presampling import Grid
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.trial_results import CAUSE

INTERRUPTED = "interrupted"
"""The cause of a trial that a person broke off with Ctrl-C: a grid visits its point again."""

_chance = random.SystemRandom()
"""Not the module's own generator: an objective that seeds it would make two processes choose alike."""


def ordinals(study: OptunaStudy, spec: StudySpec) -> Callable[[], int]:
    """What to call before each ask. Beyond a grid's last point it gives the ordinal at which `ask` is exhausted."""
    if spec.sampler.name != "grid":
        return lambda: len(study.optuna_study.get_trials(deepcopy=False))
    grid = Grid(spec.search_space, **spec.sampler.options)
    points = {_key(grid.point(ordinal).params): ordinal for ordinal in range(len(grid))}
    return lambda: _unvisited(study, points)


def _unvisited(study: OptunaStudy, points: dict[tuple[object, ...], int]) -> int:
    visited = {
        _key(trial.params)
        for trial in study.optuna_study.get_trials(deepcopy=False)
        if trial.user_attrs.get(CAUSE) != INTERRUPTED
    }
    free = [ordinal for point, ordinal in points.items() if point not in visited]
    return _chance.choice(free) if free else len(points)


def _key(params: Params) -> tuple[object, ...]:
    return tuple(value for _, value in sorted(params.items()))
