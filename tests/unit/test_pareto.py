"""The Pareto front of loss and size, against its definition; of any objectives, against Optuna's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _fast_non_domination_rank

from highnoon.shared.domain.front import front, hypervolume, hypervolume_history, pareto_ranks
from highnoon.shared.domain.score import ParetoPoint, pareto_front


def candidates(*points: tuple[float, int]) -> list[ParetoPoint]:
    return [ParetoPoint(number=number, loss=loss, params=params) for number, (loss, params) in enumerate(points)]


def numbers(front: list[ParetoPoint]) -> list[int]:
    return [candidate.number for candidate in front]


def test_what_another_beats_in_both_is_left_out() -> None:
    assert numbers(pareto_front(candidates((0.3, 10), (0.2, 20), (0.25, 30), (0.1, 40), (0.1, 50)))) == [0, 1, 3]


def test_under_maximize_more_is_better() -> None:
    assert numbers(pareto_front(candidates((0.8, 10), (0.7, 20), (0.9, 30)), maximize=True)) == [0, 2]


def test_of_equals_the_first_trial_stands_for_all() -> None:
    assert numbers(pareto_front(candidates((0.2, 20), (0.2, 20), (0.2, 30)))) == [0]


def test_nothing_has_an_empty_front() -> None:
    assert pareto_front([]) == []


def beats(one: ParetoPoint, other: ParetoPoint, sign: int) -> bool:
    no_worse = sign * one.loss <= sign * other.loss and one.params <= other.params
    return no_worse and (one.loss != other.loss or one.params != other.params)


@given(points=st.lists(st.tuples(st.integers(0, 8).map(float), st.integers(1, 8)), max_size=40), maximize=st.booleans())
def test_it_is_exactly_what_none_beats(points: list[tuple[float, int]], maximize: bool) -> None:
    sign = -1 if maximize else 1
    given_ = candidates(*points)
    unbeaten = {(c.loss, c.params) for c in given_ if not any(beats(other, c, sign) for other in given_)}

    front = pareto_front(given_, maximize=maximize)

    assert {(c.loss, c.params) for c in front} == unbeaten
    assert len(front) == len(unbeaten)
    assert [c.params for c in front] == sorted(c.params for c in front)


# --- Any number of objectives


POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=25)


@given(POINTS)
def test_the_ranks_are_optunas(points: list[tuple[float, ...]]) -> None:
    ranks = pareto_ranks(points)
    expected = _fast_non_domination_rank(np.array(points).reshape(-1, 3)) if points else []
    assert ranks == list(expected)
    assert {points[place] for place, rank in enumerate(ranks) if rank == 0} == set(front(points, lambda one: one))


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
