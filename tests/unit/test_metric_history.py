"""Curves of logged metrics: bounded whatever is logged, evenly spaced, and the same in each way of keeping them."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import highnoon as hn
from highnoon.shared.domain.metric_history import (
    MOST_METRICS,
    MOST_POINTS,
    MOST_TEXT,
    MetricRecorder,
    checked_history,
    curves_in,
    curves_of,
    history_text,
)
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective import metric_log, trial_pipe
from highnoon.shared.objective.attempt import run_attempt
from highnoon.shared.objective.repetition import Repeats
from tests.unit.test_execution import RecordingChannel, attempt


def recorded(*values: tuple[int | None, float], name: str = "accuracy") -> list[tuple[int, float]]:
    recorder = MetricRecorder()
    for step, value in values:
        assert recorder.add({name: value}, step)
    return curves_of(recorder.history()).get(name, [])


def test_a_metric_is_a_curve_from_its_second_value_on() -> None:
    assert recorded((3, 0.5)) == []
    assert recorded((3, 0.5), (4, 0.75)) == [(3, 0.5), (4, 0.75)]


def test_values_without_a_step_follow_the_one_before() -> None:
    assert recorded((None, 1.0), (None, 2.0), (7, 3.0), (None, 4.0)) == [(0, 1.0), (1, 2.0), (7, 3.0), (8, 4.0)]
    largest = 2**31 - 1
    assert recorded((largest, 1.0), (None, 2.0)) == [(largest, 2.0)]


def test_a_curve_is_by_step_and_has_the_later_value_of_a_step() -> None:
    assert recorded((2, 1.0), (0, 2.0), (2, 3.0), (1, 4.0)) == [(0, 2.0), (1, 4.0), (2, 3.0)]


@pytest.mark.parametrize("count", [MOST_POINTS - 1, MOST_POINTS, MOST_POINTS + 1, 12_345, 100_000])
def test_a_long_curve_is_thinned_evenly_and_has_both_ends(count: int) -> None:
    curve = recorded(*((step, float(step)) for step in range(count)))
    steps = [step for step, _ in curve]
    assert min(MOST_POINTS // 2, count) <= len(curve) <= MOST_POINTS
    assert (steps[0], steps[-1]) == (0, count - 1)
    gaps = {after - before for before, after in pairwise(steps[:-1])}
    assert len(gaps) == 1, "but for the newest one"


def test_only_the_first_metrics_that_are_logged_again_have_curves() -> None:
    recorder = MetricRecorder()
    constants = {f"constant_{number}": 1.0 for number in range(2 * MOST_METRICS)}
    assert recorder.add(constants, None), "logged once, they take no place"
    many = {f"m{number}": 0.5 for number in range(MOST_METRICS + 1)}
    assert recorder.add(many, 0)
    assert not recorder.add(many, 1)
    assert list(recorder.history()) == list(many)[:MOST_METRICS]


@given(st.lists(st.tuples(st.none() | st.integers(0, 2**31 - 1), st.floats()), min_size=2, max_size=500))
def test_whatever_is_logged_is_kept_and_read_alike(values: list[tuple[int | None, float]]) -> None:
    recorder = MetricRecorder()
    for step, value in values:
        recorder.add({"accuracy": value}, step)
    history = recorder.history()
    sent = json.loads(json.dumps(history, allow_nan=False))
    assert checked_history(sent) == history
    assert str(curves_in(history_text(history))) == str(curves_of(history)), "NaN is unequal to itself"
    steps = [step for step, _ in history["accuracy"]]
    assert steps == sorted(set(steps)) and 0 < len(steps) <= MOST_POINTS


def test_the_attribute_is_bounded_whatever_the_curves_are() -> None:
    worst = tuple((2**31 - 1 - step, -1.7976931348623157e308) for step in reversed(range(MOST_POINTS)))
    history = {chr(0x1F600 + number) * 100: worst for number in range(MOST_METRICS)}
    text = history_text(history)
    assert len(json.dumps(text)) <= MOST_TEXT
    curves = curves_in(text)
    assert list(curves) == list(history)
    assert all((curve[0], curve[-1]) == (worst[0], worst[-1]) for curve in curves.values())


@pytest.mark.parametrize("count", [2, 3, 4, 197, 198, 199, 200])
def test_thinning_for_the_attribute_keeps_the_first_and_the_newest_point(count: int) -> None:
    points = tuple((step, f"{step:0120d}") for step in range(count))
    curves = curves_in(history_text({f"m{number}": points for number in range(MOST_METRICS)}))
    assert len(curves) == MOST_METRICS
    assert {(curve[0][0], curve[-1][0]) for curve in curves.values()} == {(0, count - 1)}


@pytest.mark.parametrize("points", [(), ((0, 0.5),), ((0, 0.5), (1, 0.6))])
def test_curves_that_cannot_be_thinned_are_left_out(points: tuple[tuple[int, float], ...]) -> None:
    history = {str(number) * MOST_TEXT: points for number in range(3)}
    assert curves_in(history_text({"short": points, **history})) == {"short": list(points)}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "5",
        "[1]",
        '{"a": 3}',
        '{"a": [[1]]}',
        '{"a": [[0, "many"]]}',
        '{"a": [["first", 1.0]]}',
        f'{{"a": [[0, 1{"0" * 400}]]}}',
        "[" * 100_000,
        "nan",
    ],
)
def test_what_another_program_wrote_is_no_curve(text: object) -> None:
    assert curves_in(text) == {}


def test_curves_beside_what_is_no_curve_are_read() -> None:
    assert curves_of({"a": 3, "b": [[0, 0.5], [1, "inf"]], "c": None}) == {"b": [(0, 0.5), (1, math.inf)]}
    assert curves_of(5) == curves_of(None) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"a": [[0, 1.0]] * (MOST_POINTS + 1)},
        {f"m{number}": [] for number in range(MOST_METRICS + 1)},
        {"highnoon:loss": [[0, 1.0]]},
        {"a" * 101: [[0, 1.0]]},
        {"a": [[-1, 1.0]]},
        {"a": [[2**31, 1.0]]},
        {"a": [[0.5, 1.0]]},
        {"a": [[True, 1.0]]},
        {"a": [[0, "many"]]},
        {"a": [[0, None]]},
        {"a": [[0, 1.0, 2.0]]},
        {"a": 3},
        [["a", [[0, 1.0]]]],
        None,
    ],
)
def test_what_no_recorder_gives_is_refused(given: Any) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        checked_history(given)


def test_an_outcome_has_what_was_logged_and_not_what_was_returned() -> None:
    def objective(params: dict[str, Any]) -> object:
        for epoch in range(3):
            hn.log(epoch, accuracy=0.5 + epoch / 10, worst=math.inf)
        hn.log(once=1.0)
        return {"loss": 0.25, "accuracy": 0.9}

    outcome = attempt(objective)
    assert outcome.ending is Ending.COMPLETED and outcome.metrics["accuracy"] == 0.9
    assert outcome.metric_history == {
        "accuracy": ((0, 0.5), (1, 0.6), (2, 0.7)),
        "worst": ((0, "inf"), (1, "inf"), (2, "inf")),
    }
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert "metric_history" not in attempt(lambda params: 0.5).to_json()


def test_a_trial_that_fails_has_its_curves() -> None:
    def objective(params: dict[str, Any]) -> object:
        hn.log(0, accuracy=0.5)
        hn.log(1, accuracy=0.6)
        raise ValueError

    assert attempt(objective).metric_history == {"accuracy": ((0, 0.5), (1, 0.6))}


def test_of_a_repeated_point_the_first_repeat_is_drawn() -> None:
    calls: list[int] = []

    def objective(params: dict[str, Any]) -> float:
        calls.append(len(calls))
        for step in range(2):
            hn.log(step, accuracy=float(10 * calls[-1] + step))
        return 1.0

    outcome = run_attempt(objective, {}, RecordingChannel(), repeats=Repeats(count=3))
    assert outcome.metric_history == {"accuracy": ((0, 0.0), (1, 1.0))}
    assert outcome.metrics["accuracy"] == 11.0, "the mean"


def test_curves_are_sent_every_few_seconds_while_the_trial_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(metric_log.time, "monotonic", lambda: now[0])
    channel = RecordingChannel()

    def objective(params: dict[str, Any]) -> float:
        for step in range(50):
            hn.log(step, accuracy=float(step))
            now[0] += 0.125
        return 1.0

    attempt(objective, channel)
    assert [history["accuracy"][-1][0] for history in channel.histories] == [16, 32, 48]


def test_metrics_without_a_curve_are_named_once_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_log, "_warned", [])

    def objective(params: dict[str, Any]) -> float:
        for step in range(3):
            hn.log(step, **{f"m{number}": 0.5 for number in range(MOST_METRICS + 5)})
        return 1.0

    outcome = attempt(objective)
    assert len(outcome.metric_history) == MOST_METRICS and len(outcome.metrics) == MOST_METRICS + 5
    assert caplog.text.count("curves of 30 metrics") == 1


def test_result_of_a_trial_that_logs_thousands_of_names_fits_the_pipe(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_log, "_warned", [])

    def objective(params: dict[str, Any]) -> object:
        for step in range(2):
            hn.log(step, **{f"{number}".ljust(100, "\u7814"): 1.1 * step for number in range(21_841)})
        return {"loss": 1.0, "0".ljust(100, "\u7814"): 7.0, "f1": 0.5}

    outcome = attempt(objective)

    first = [f"{number}".ljust(100, "\u7814") for number in range(len(outcome.metrics) - 1)]
    assert (outcome.ending, outcome.value, list(outcome.metrics)) == (Ending.COMPLETED, 1.0, [*first, "f1"])
    assert outcome.metrics[first[0]] == 7.0 and outcome.metrics[first[-1]] == 1.1 and len(first) > 700
    assert len(json.dumps(outcome.to_json())) < trial_pipe._LONGEST_LINE_BYTES
    assert caplog.text.count("a trial keeps 500000 bytes of metrics") == 1


def test_repeats_share_the_names_that_a_trial_keeps() -> None:
    repeat = iter(range(3))

    def objective(params: dict[str, Any]) -> float:
        of = next(repeat)
        hn.log(**{f"{of}/{number}".ljust(100, "-"): 0.5 for number in range(2000)})
        return float(of)

    outcome = run_attempt(objective, {}, RecordingChannel(), repeats=Repeats(count=3))

    ours = {"repeats": 3, "repeats_worst": 2.0}
    assert {name: outcome.metrics[name] for name in ours} == ours
    assert sum("/" in name for name in outcome.metrics) == 500_000 // 130
