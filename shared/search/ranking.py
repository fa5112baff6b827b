"""Which trials of a study are its best ones, for one goal or several."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.front import minimized, pareto_ranks


def best_numbers(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], count: int) -> set[int]:
    """The numbers of the `count` best completed trials, of equal ones the earlier; those that are feasible first.

    Of several goals the front comes first, then what would be the front without it, and so on.
    """
    ways = [direction.name.lower() for direction in directions]
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values]
    missed = [trial for trial in complete if any(value > 0 for value in trial.constraints.values())]
    if missed:
        out = {trial.number for trial in missed}
        complete = [trial for trial in complete if trial.number not in out]
    best = _best(complete, ways, count)
    return best | _best(missed, ways, count - len(best))


def _best(trials: Sequence[FrozenTrial], ways: Sequence[str], count: int) -> set[int]:
    """Without ordering those that are none of them: a study may have tens of thousands."""
    points = [minimized(trial.values, ways) for trial in trials]
    ranks = [point[0] for point in points] if len(ways) == 1 else pareto_ranks(points, at_least=count)
    return {number for _, number in nsmallest(count, zip(ranks, (trial.number for trial in trials), strict=True))}
