"""The best trials: by value for one goal, the front first for several, feasible ones before all others."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from highnoon.shared.domain.front import pareto_front, pareto_ranks
from highnoon.shared.search.ranking import best_numbers

DOWN, UP = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


def trials(*values: list[float] | None, missed: tuple[int, ...] = ()) -> list[FrozenTrial]:
    """One per list of values; None is a trial that failed."""
    found = []
    for number, one in enumerate(values):
        attrs = {"constraints:latency": 1.0 if number in missed else -1.0}
        state = TrialState.FAIL if one is None else TrialState.COMPLETE
        trial = create_trial(state=state, values=one, system_attrs=attrs)
        trial.number = number
        found.append(trial)
    return found


def test_one_goal() -> None:
    found = trials([3.0], [1.0], None, [2.0], [1.0], [float("inf")])
    assert best_numbers(found, [DOWN], 2) == {1, 4}
    assert best_numbers(found, [UP], 2) == {5, 0}
    assert best_numbers(found, [DOWN], 99) == {0, 1, 3, 4, 5}


def test_several_goals() -> None:
    found = trials([1.0, 1.0], [2.0, 2.0], [0.0, 0.0], [3.0, 3.0], [0.5, 9.0])
    # Smaller and larger: (0, 0) and (0.5, 9) are beaten by none, and the second beats the others.
    assert best_numbers(found, [DOWN, UP], 2) == {2, 4}
    assert best_numbers(found, [DOWN, DOWN], 1) == {2}
    assert best_numbers(found, [DOWN, DOWN], 3) == {0, 2, 4}


def test_of_many_trials_only_the_first_fronts_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    # 300 fronts of ten points each.
    found = trials(*([float(level + place), float(level - place)] for level in range(300) for place in range(10)))
    drawn: list[int] = []

    def counted(candidates: Any, point: Any) -> Any:
        drawn.append(1)
        return pareto_front(candidates, point)

    monkeypatch.setattr("highnoon.shared.domain.front.pareto_front", counted)
    fifteen = best_numbers(found, [DOWN, DOWN], 15)
    assert len(drawn) <= 4, "fronts beyond the best are not looked for"
    assert len(fifteen) == 15
    points = [(one.values[0], one.values[1]) for one in found]
    order = sorted(zip(pareto_ranks(points), range(len(points)), strict=True))
    assert fifteen == {number for _, number in order[:15]}


def test_infeasible_trials_come_last() -> None:
    found = trials([1.0], [2.0], [3.0], missed=(0,))
    assert best_numbers(found, [DOWN], 2) == {1, 2}
    assert best_numbers(found, [DOWN], 3) == {0, 1, 2}
