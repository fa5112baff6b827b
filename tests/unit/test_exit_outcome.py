"""What the exit status of a trial process means, on a worker as in process."""

from __future__ import annotations

import signal

import pytest

from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.objective.exit_outcome import outcome_of_exit


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
