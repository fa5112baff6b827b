"""What the exit status of a trial process means, on a worker as in process."""

from __future__ import annotations

import logging
import signal

import pytest

from highnoon.local.run import _log_trial
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.exit_outcome import outcome_of_exit
from highnoon.shared.store.optuna_trials import StartedTrial


@pytest.mark.parametrize(
    ("status", "has_begun", "ending", "cause"),
    [
        (7, True, Ending.FAILED, "exited"),
        (7, False, Ending.KILLED, Cause.NOT_BEGUN),
        (None, True, Ending.FAILED, "exited"),
        (-signal.SIGSEGV, True, Ending.FAILED, "crashed"),
        (-signal.SIGKILL, True, Ending.KILLED, "signal"),
        (-signal.SIGUSR1, True, Ending.KILLED, "signal"),
        (-signal.SIGTERM, False, Ending.KILLED, "signal"),
    ],
)
def test_a_crash_is_a_failure_and_a_signal_from_outside_is_not(
    status: int | None, has_begun: bool, ending: Ending, cause: str
) -> None:
    outcome = outcome_of_exit(status, has_begun=has_begun)
    assert (outcome.ending, outcome.cause) == (ending, cause)
    is_signal = status is not None and status < 0
    assert outcome.exit_status == (None if is_signal else status)
    assert (outcome.signal is not None) is is_signal


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.KILLED, Ending.LOST])
def test_a_trial_that_counts_as_failed_is_logged_as_a_warning(ending: Ending, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="highnoon")
    space = {"x": ["uniform", 0.0, 1.0]}
    spec = StudySpec.from_json({"name": "digits", "objective": "a.py:f", "search_space": space})
    _log_trial(spec, StartedTrial(trial_id=1, number=0, params={}), Outcome(ending=ending))
    _log_trial(spec, StartedTrial(trial_id=2, number=1, params={}), Outcome(ending=Ending.COMPLETED, value=0.5))
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
