"""Filtering, sorting and paging."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.param import Categorical, Int
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.webui.listing import StudyQuery, TrialQuery, choose_studies, choose_trials, paged

TRIALS = [
    Trial(
        number=0,
        state=TrialState.COMPLETE,
        params={"x": 3, "opt": "b"},
        value=0.5,
        attrs={"highnoon:cause": "made up by a program"},
    ),
    Trial(number=1, state=TrialState.FAIL, params={"x": 1}, attrs={"highnoon:cause": "timeout"}),
    Trial(number=2, state=TrialState.PRUNED, params={"x": 2, "opt": "a"}, value=0.1),
    Trial(number=3, state=TrialState.COMPLETE, params={"x": True, "opt": None}, value=float("inf")),
]

SPACE = {"x": Int(0, 9), "opt": Categorical(("a", "b", None)), "size": Categorical((16, 32))}


def numbers(**query: object) -> list[int]:
    return [trial.number for trial in choose_trials(TRIALS, TrialQuery.model_validate(query), SPACE).items]


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
        ({"param": "x", "value": "9"}, []),
        ({"param": "x", "value": " "}, [3, 2, 1, 0]),
        ({"param": "size", "value": "10..30"}, []),
        ({"cause": "exception"}, []),
        ({"cause": "made up by a program"}, [0]),
        ({"param": "opt", "value": "b", "state": "fail"}, []),
    ],
)
def test_sorted_and_chosen_with_the_missing_last(query: dict[str, str], expected: list[int]) -> None:
    assert numbers(**query) == expected


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ({"sort": "valu"}, "Did you mean value?"),
        ({"state": "FAILED"}, "Did you mean FAIL?"),
        ({"param": "op"}, "Did you mean opt?"),
        ({"cause": "timeot"}, "Did you mean timeout?"),
        ({"cause": "zz"}, "Valid: completed, "),
        ({"value": "3"}, "Valid: x, opt, size."),
        ({"param": "opt", "value": "adam"}, "Valid: a, b, none."),
        ({"param": "opt", "value": "1..2"}, "Valid: a, b, none."),
        ({"param": "x", "value": "abc"}, "Write for example 8, 8.. or 0.001..0.1."),
        ({"param": "x", "value": "a..b"}, "Write for example 8, 8.. or 0.001..0.1."),
        ({"param": "x", "value": "10..1"}, "Write for example 8, 8.. or 0.001..0.1."),
    ],
)
def test_a_filter_that_nothing_can_pass_is_answered_with_what_is_valid(query: dict[str, str], hint: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(hint)):
        numbers(**query)


def test_unknown_state_of_studies_is_answered_with_the_nearest_known_one() -> None:
    assert choose_studies([], StudyQuery(state="external")).total == 0
    with pytest.raises(InvalidInput, match=r"Did you mean paused\?"):
        choose_studies([], StudyQuery(state="pausd"))


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
