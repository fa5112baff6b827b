"""Filtering, sorting and paging."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.webui.listing import TrialQuery, choose_trials, paged

TRIALS = [
    Trial(number=0, state=TrialState.COMPLETE, params={"x": 3, "opt": "b"}, value=0.5),
    Trial(number=1, state=TrialState.FAIL, params={"x": 1}, attrs={"highnoon:cause": "timeout"}),
    Trial(number=2, state=TrialState.PRUNED, params={"x": 2, "opt": "a"}, value=0.1),
    Trial(number=3, state=TrialState.COMPLETE, params={"x": True, "opt": None}, value=float("inf")),
]


def numbers(**query: object) -> list[int]:
    return [trial.number for trial in choose_trials(TRIALS, TrialQuery.model_validate(query), ["x", "opt"]).items]


def test_the_default_is_newest_first() -> None:
    assert numbers() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"sort": "value"}, [2, 0, 3, 1]),
        ({"sort": "-value"}, [3, 0, 2, 1]),
        ({"sort": "params.x"}, [1, 3, 2, 0]),
        ({"sort": "params.opt"}, [2, 0, 1, 3]),
        ({"state": "complete"}, [3, 0]),
        ({"cause": "timeout"}, [1]),
        ({"state": "COMPLETE", "cause": "timeout"}, []),
        ({"param": "opt"}, [3, 2, 0]),
        ({"param": "opt", "value": "a"}, [2]),
        ({"param": "opt", "value": "none"}, [3]),
        ({"param": "x", "value": "3"}, [0]),
        ({"param": "x", "value": "1..2"}, [2, 1]),
        ({"param": "x", "value": "2.."}, [2, 0]),
        ({"param": "x", "value": "..1.5"}, [1]),
        ({"param": "x", "value": "a..b"}, []),
        ({"param": "opt", "value": "b", "state": "fail"}, []),
    ],
)
def test_sorted_and_chosen_with_the_missing_last(query: dict[str, str], expected: list[int]) -> None:
    assert numbers(**query) == expected


@pytest.mark.parametrize(
    ("query", "near"), [({"sort": "valu"}, "value"), ({"state": "FAILED"}, "FAIL"), ({"param": "op"}, "opt")]
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(query: dict[str, str], near: str) -> None:
    with pytest.raises(InvalidInput, match=f"Did you mean {near}"):
        numbers(**query)


def test_pages_have_their_places_and_end() -> None:
    items = list(range(101))
    third = paged(items, TrialQuery(page=3))
    assert (third.items, third.first, third.last) == ([100], 101, 101)
    assert paged(items, TrialQuery(page=99)).number == 3
    assert (paged([], TrialQuery()).pages, paged([], TrialQuery()).first) == (1, 0)


@pytest.mark.parametrize("query", [{"page": -4}, {"per_page": 10**9}])
def test_a_page_that_cannot_be_is_rejected(query: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TrialQuery.model_validate(query)
