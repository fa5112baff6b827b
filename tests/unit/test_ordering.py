"""In which order trials are listed: the best first, what has no value last."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from highnoon.coordinator.cli.tables import ordered
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Params, Trial

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def trial(number: int, value: float | None, took_s: float | None, params: Params) -> Trial:
    ended = None if took_s is None else BEGAN + timedelta(seconds=took_s)
    return Trial(
        number=number,
        state=TrialState.COMPLETE,
        params=params,
        value=value,
        loss=value,
        started_at=BEGAN,
        ended_at=ended,
    )


TRIALS = [
    trial(0, 0.5, 3.0, {"units": 64, "choice": "b"}),
    trial(1, None, None, {"units": 8}),
    trial(2, float("inf"), 1.0, {"units": 32, "choice": 2}),
    trial(3, -0.5, 2.0, {"units": 16, "choice": "a"}),
]


@pytest.mark.parametrize(
    ("key", "options", "numbers"),
    [
        ("number", {}, [0, 1, 2, 3]),
        ("number", {"reverse": True}, [3, 2, 1, 0]),
        ("score", {}, [3, 0, 2, 1]),
        ("score", {"maximize": True}, [2, 0, 3, 1]),
        ("loss", {"maximize": True, "reverse": True}, [3, 0, 2, 1]),
        ("duration", {"maximize": True}, [2, 3, 0, 1]),
        ("units", {}, [1, 3, 2, 0]),
        ("choice", {}, [2, 3, 0, 1]),
        ("choice", {"reverse": True}, [0, 3, 2, 1]),
        ("size", {}, [0, 1, 2, 3]),
        ("value", {"maximize": True}, [2, 0, 3, 1]),
        ("started", {}, [0, 1, 2, 3]),
        ("params.units", {}, [1, 3, 2, 0]),
    ],
)
def test_trials_are_ordered_and_those_without_a_value_come_last(
    key: str, options: dict[str, Any], numbers: list[int]
) -> None:
    asked = {"names": ["units", "choice"], "maximize": False, **options}
    assert [one.number for one in ordered(TRIALS, key, **asked)] == numbers


def test_a_wrong_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"--sort: .*got 'unts'.*Did you mean units"):
        ordered(TRIALS, "unts", names=["units"], maximize=False)
    with pytest.raises(
        InvalidInput, match="Valid: number, value, score, loss, size, state, cause, duration, started, units"
    ):
        ordered(TRIALS, "zzz", names=["units"], maximize=False)


@pytest.mark.parametrize(("reverse", "numbers"), [(False, [2, 0, 1, 3, 4]), (True, [1, 0, 2, 3, 4])])
def test_metrics_that_are_not_a_number_come_last_and_change_no_other_place(reverse: bool, numbers: list[int]) -> None:
    accuracies = [0.3, 0.9, 0.1, "nan", None]
    trials = [
        replace(trial(number, 0.5, 1.0, {}), attrs={} if accuracy is None else {"accuracy": accuracy})
        for number, accuracy in enumerate(accuracies)
    ]
    trials.insert(1, trials.pop(3))
    assert [one.number for one in ordered(trials, "accuracy", names=[], maximize=False, reverse=reverse)] == numbers
