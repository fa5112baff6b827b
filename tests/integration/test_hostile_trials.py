"""Trials that work against their supervisor: each ends by its own fault, and holds neither supervisor nor node."""

from __future__ import annotations

import json
import re
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from highnoon.shared.domain.metric_history import MOST_METRICS, MOST_POINTS
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.processes import identify
from highnoon.shared.store.trial_results import result_json, trial_result
from tests.integration.test_trial_process import Diary, begin
from tests.support import eventually


def outcome_of(
    tmp_path: Path, objective: str, diary: Diary | None = None, *, x: float = 1.0, isolation: str = "fork"
) -> Outcome:
    attempt = begin(tmp_path, f"hostile_objectives.py:{objective}", x=x, isolation=isolation)
    diary = diary or Diary()
    # A sampler that never answers.
    diary.suggestions = SimpleNamespace(ask=lambda _: None, take=lambda _: True, answer=lambda: None)
    return attempt.watch(diary, trial_timeout_s=40.0)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("writes_garbage", "hello"),
        ("writes_a_list", "[1, 2]"),
        ("writes_a_line_without_end", "bytes) is no event"),
        ("sends_a_huge_line", "bytes) is no event"),
        ("sends_half_a_report", "'value'"),
        ("sends_a_huge_step", "2147483648"),
        ("sends_a_wrong_result", "released"),
        ("sends_a_result_of_wrong_types", "many"),
        ("asks_without_waiting", "a second question"),
        ("sets_a_huge_attribute", "more than 500,000 characters"),
        ("sends_too_many_curves", "one of more than 200 points"),
        ("sends_a_curve_without_values", "a wrong metrics"),
    ],
)
def test_what_is_no_event_is_the_trials_own_failure(tmp_path: Path, objective: str, said: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = outcome_of(tmp_path, objective)
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "protocol")
    assert said in outcome.message and len(outcome.message) < 600
    assert outcome.duration_s is not None and outcome.duration_s < 35
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"


def test_step_that_optuna_cannot_store_fails_and_is_named(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "reports_a_huge_step")
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "exception")
    assert "step: must be at most 2147483647" in outcome.message


def test_flood_of_reports_costs_its_supervisor_little_and_ends_with_its_result(tmp_path: Path) -> None:
    diary = Diary()
    diary.keeps = 1000
    before = resource.getrusage(resource.RUSAGE_SELF)
    outcome = outcome_of(tmp_path, "reports_without_end", diary, x=200_000)
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0)
    assert len(diary.reports) == 200_000
    assert outcome.log_tail.count("some are left out") == 1, "said once"
    assert outcome.duration_s is not None
    share = (used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime) / outcome.duration_s
    assert share < 0.8, "of a core"
    assert max(b - a for a, b in zip(diary.looks, diary.looks[1:], strict=False)) < 8.0, "its lease is looked after"


def test_a_million_logged_values_and_thousands_of_names_are_bounded(tmp_path: Path) -> None:
    diary = Diary()
    before = resource.getrusage(resource.RUSAGE_SELF)
    outcome = outcome_of(tmp_path, "logs_without_end", diary, x=1_000_000)
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0), outcome
    assert (len(outcome.metric_history), len(outcome.metrics)) == (MOST_METRICS, 3001)
    assert all(len(points) <= MOST_POINTS for points in outcome.metric_history.values())
    assert {value for _, value in outcome.metric_history["loss"]} <= {1e308, "nan", "-inf", 5e-324}
    assert len(result_json(trial_result(outcome))) < 300_000 and len(json.dumps(outcome.to_json())) < 600_000
    assert outcome.duration_s is not None
    share = (used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime) / outcome.duration_s
    assert share < 0.5, "of a core"


def test_flood_of_curves_costs_its_supervisor_little_and_is_taken_once_a_second(tmp_path: Path) -> None:
    diary = Diary()
    before = resource.getrusage(resource.RUSAGE_SELF)
    outcome = outcome_of(tmp_path, "sends_curves_without_end", diary, x=100)
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0), outcome
    assert outcome.duration_s is not None
    assert 1 <= len(diary.histories) <= 2 + outcome.duration_s
    assert len(diary.histories[0]) == MOST_METRICS
    share = (used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime) / outcome.duration_s
    assert share < 0.5, "of a core"


def test_ten_megabytes_of_reports_at_once_are_read_in_portions(tmp_path: Path) -> None:
    diary = Diary()
    outcome = outcome_of(tmp_path, "reports_10_mb_at_once", diary)
    assert (outcome.ending, len(diary.reports)) == (Ending.COMPLETED, 200_000)
    assert len(diary.looks) > 50


@pytest.mark.parametrize(("x", "ending"), [(1.0, Ending.COMPLETED), (-1.0, Ending.FAILED)])
def test_child_that_keeps_pipe_and_output_open_holds_nothing(tmp_path: Path, x: float, ending: Ending) -> None:
    began = time.monotonic()
    outcome = outcome_of(tmp_path, "leaves_a_child_with_its_pipe", x=x)
    assert outcome.ending is ending
    assert time.monotonic() - began < 35, "its time limit did not end it"


def test_trial_that_stops_its_parent_keeps_its_result(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "stops_its_parent")
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0)


def test_trial_that_stops_its_parent_and_hangs_obeys_its_time_limit(tmp_path: Path) -> None:
    attempt = begin(tmp_path, "hostile_objectives.py:stops_its_parent", x=-1.0)
    outcome = attempt.watch(Diary(), trial_timeout_s=0.5)
    assert outcome.ending is Ending.TIMED_OUT
    assert outcome.duration_s is not None and outcome.duration_s < 60


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
@pytest.mark.parametrize("x", [1.0, -1.0])
def test_daemons_of_a_trial_end_with_it(tmp_path: Path, x: float, isolation: str) -> None:
    outcome = outcome_of(tmp_path, "leaves_daemons", x=x, isolation=isolation)
    assert outcome.ending is (Ending.COMPLETED if x > 0 else Ending.KILLED)
    daemons = [int(pid) for pid in re.findall(r"daemon (\d+)", outcome.log_tail)]
    assert len(daemons) == 8
    eventually(lambda: not any(map(identify, daemons)), what="its daemons are gone")


def test_real_time_signal_is_named(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "ends_by_a_real_time_signal")
    assert (outcome.ending, outcome.signal) == (Ending.KILLED, "SIGRTMIN+3")
