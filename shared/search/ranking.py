"""Which trials of a study are its best ones, for one goal or several."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.front import minimized, pareto_ranks


def best_numbers(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], count: int) -> set[int]:
    """The numbers of the `count` best completed trials, of equal ones the earlier; those that are feasible first.

    Of several goals the front comes first, then what would be the front without it, and so on.
    """
    ways = [direction.name.lower() for direction in directions]
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values]
    points = [minimized(trial.values, ways) for trial in complete]
    ranks = [point[0] for point in points] if len(ways) == 1 else pareto_ranks(points)
    missed = [any(value > 0 for value in trial.constraints.values()) for trial in complete]
    order = sorted(zip(missed, ranks, (trial.number for trial in complete), strict=True))
    return {number for _, _, number in order[:count]}
