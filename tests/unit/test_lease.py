"""What an outcome does to its ticket."""

from __future__ import annotations

import json

import pytest

from highnoon.shared.domain.lease import DISK_FULL_S, Disposition, dispose, retry_delay_s
from highnoon.shared.domain.states import OPTUNA_STATE, Cause, Ending, TrialState
from highnoon.shared.domain.trial import Outcome


@pytest.mark.parametrize(
    ("ending", "infrastructure_failures", "errors", "expected"),
    [
        (Ending.COMPLETED, 0, 0, Disposition.CLOSE),
        (Ending.PRUNED, 0, 0, Disposition.CLOSE),
        (Ending.STOPPED, 0, 0, Disposition.CLOSE),
        (Ending.TIMED_OUT, 0, 0, Disposition.CLOSE),
        (Ending.CANCELLED, 0, 0, Disposition.CLOSE),
        (Ending.KILLED, 0, 0, Disposition.RETRY),
        (Ending.KILLED, 1, 0, Disposition.RETRY),
        (Ending.KILLED, 2, 0, Disposition.CLOSE),
        (Ending.LOST, 2, 0, Disposition.CLOSE),
        (Ending.FAILED, 0, 0, Disposition.RETRY),
        (Ending.FAILED, 0, 1, Disposition.CLOSE),
        (Ending.RELEASED, 2, 1, Disposition.RELEASE),
    ],
)
def test_disposition(ending: Ending, infrastructure_failures: int, errors: int, expected: Disposition) -> None:
    counts = {"infrastructure_failures": infrastructure_failures, "errors": errors}
    assert dispose(Outcome(ending=ending), attempt=1, **counts, max_attempts=3, retry_errors=1)[0] is expected


def test_errors_are_not_retried_unless_the_study_says_so() -> None:
    failed = Outcome(ending=Ending.FAILED)
    found = dispose(failed, attempt=1, infrastructure_failures=0, errors=0, max_attempts=3, retry_errors=0)
    assert found == (Disposition.CLOSE, 0.0)


@pytest.mark.parametrize(
    ("ending", "cause", "infrastructure_failures", "delay_s"),
    [
        (Ending.RELEASED, Cause.DRAIN, 2, 0.0),
        (Ending.RELEASED, Cause.DISK, 0, DISK_FULL_S),
        (Ending.KILLED, Cause.SIGNAL, 1, 2.0),
        (Ending.KILLED, Cause.SIGNAL, 2, 0.0),
        (Ending.FAILED, Cause.EXCEPTION, 2, 0.0),
    ],
)
def test_what_the_infrastructure_ended_waits_longer_each_time(
    ending: Ending, cause: Cause, infrastructure_failures: int, delay_s: float
) -> None:
    counts = {"infrastructure_failures": infrastructure_failures, "errors": 0}
    outcome = Outcome(ending=ending, cause=cause)
    assert dispose(outcome, attempt=1, **counts, max_attempts=3, retry_errors=1)[1] == delay_s


def test_a_trial_whose_sampler_fails_waits_longer_after_each_attempt() -> None:
    outcome = Outcome(ending=Ending.RELEASED, cause=Cause.PLUGIN)
    limits = {"infrastructure_failures": 0, "errors": 0, "max_attempts": 3, "retry_errors": 0}
    found = [dispose(outcome, attempt=attempt, **limits) for attempt in (1, 2, 3, 9, 5000)]
    assert found == [(Disposition.RELEASE, delay_s) for delay_s in (2.0, 4.0, 8.0, 300.0, 300.0)]


def test_every_ending_is_told_as_a_finished_state() -> None:
    assert set(OPTUNA_STATE) == set(Ending)
    assert set(OPTUNA_STATE.values()) == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


def test_an_outcome_survives_json_and_drops_what_a_newer_version_added() -> None:
    outcome = Outcome(ending=Ending.KILLED, cause="signal", signal="SIGKILL", log_tail="a\nb", peak_rss_bytes=1)
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert Outcome.from_json({**outcome.to_json(), "invented_later": 1}) == outcome


def test_an_outcome_of_an_older_version_is_read() -> None:
    written = {"ending": "completed", "value": "inf", "cause": None, "message": "", "duration_s": 1.0}
    assert Outcome.from_json(written) == Outcome(ending=Ending.COMPLETED, value=float("inf"), duration_s=1.0)


def test_an_outcome_keeps_loss_size_and_constraint() -> None:
    outcome = Outcome(
        ending=Ending.STOPPED, loss=0.1, params_count=10**12, active_params=5, constraint=0.5, cause="param_budget"
    )
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 0.5, None])
def test_an_outcome_is_json_whatever_its_value(value: float | None) -> None:
    outcome = Outcome(ending=Ending.COMPLETED, value=value, loss=value, constraint=value)
    text = json.dumps(outcome.to_json(), allow_nan=False)
    assert Outcome.from_json(json.loads(text)) == outcome


def test_first_retry_is_immediate_unless_a_neighbour_must_leave_first() -> None:
    assert [retry_delay_s(failures, "signal") for failures in range(4)] == [0.0, 2.0, 4.0, 8.0]
    assert [retry_delay_s(failures, Cause.OOM_NEIGHBOUR) for failures in range(3)] == [1.0, 2.0, 4.0]


def test_no_retry_waits_for_more_than_five_minutes() -> None:
    assert [retry_delay_s(failures) for failures in (8, 9, 15, 5000)] == [256.0, 300.0, 300.0, 300.0]
