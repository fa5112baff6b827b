"""The Pareto front of loss and size, against its definition; of any objectives, against Optuna's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _fast_non_domination_rank

from highnoon.shared.domain.front import hypervolume, hypervolume_history, pareto_front, pareto_ranks
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.trials import front_by_size


def candidates(*points: tuple[float, int]) -> list[Trial]:
    return [
        Trial(number=number, state=TrialState.COMPLETE, params={}, loss=loss, params_count=size)
        for number, (loss, size) in enumerate(points)
    ]


def smallest(*points: tuple[float, int], maximize: bool = False) -> list[int]:
    return [trial.number for trial in front_by_size(reversed(candidates(*points)), maximize=maximize)]


def test_what_another_beats_in_both_is_left_out() -> None:
    assert smallest((0.3, 10), (0.2, 20), (0.25, 30), (0.1, 40), (0.1, 50)) == [0, 1, 3]


def test_under_maximize_more_is_better() -> None:
    assert smallest((0.8, 10), (0.7, 20), (0.9, 30), maximize=True) == [0, 2]


def test_equals_are_all_on_the_front() -> None:
    assert smallest((0.2, 20), (0.2, 20), (0.2, 30)) == [0, 1]


def test_nothing_has_an_empty_front() -> None:
    assert front_by_size([], maximize=False) == []


def beats(one: Trial, other: Trial, sign: int) -> bool:
    no_worse = sign * one.loss <= sign * other.loss and one.params_count <= other.params_count
    return no_worse and (one.loss != other.loss or one.params_count != other.params_count)


@given(points=st.lists(st.tuples(st.integers(0, 8).map(float), st.integers(1, 8)), max_size=40), maximize=st.booleans())
def test_it_is_exactly_what_none_beats(points: list[tuple[float, int]], maximize: bool) -> None:
    sign = -1 if maximize else 1
    given_ = candidates(*points)
    unbeaten = [c.number for c in given_ if not any(beats(other, c, sign) for other in given_)]

    front = front_by_size(given_, maximize=maximize)

    assert sorted(c.number for c in front) == unbeaten
    assert [c.params_count for c in front] == sorted(c.params_count for c in front)


# --- Any number of objectives


POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=25)


@given(POINTS)
def test_the_ranks_are_optunas(points: list[tuple[float, ...]]) -> None:
    ranks = pareto_ranks(points)
    expected = _fast_non_domination_rank(np.array(points).reshape(-1, 3)) if points else []
    assert ranks == list(expected)
    assert {points[place] for place, rank in enumerate(ranks) if rank == 0} == set(
        pareto_front(points, lambda one: one)
    )


@given(POINTS)
def test_the_volume_is_optunas(points: list[tuple[float, ...]]) -> None:
    for width in (2, 3):
        narrow = [point[:width] for point in points]
        reference = (4.0,) * width
        inside = np.array([one for one in narrow if all(value < 4.0 for value in one)]).reshape(-1, width)
        expected = compute_hypervolume(inside, np.array(reference)) if len(inside) else 0.0
        assert hypervolume(narrow, reference) == pytest.approx(expected)
        history = hypervolume_history(narrow, reference)
        assert history == sorted(history)
        assert history[-1:] == [pytest.approx(expected)] * bool(history)
