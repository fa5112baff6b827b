"""What Flower shows of a trial's task."""

from __future__ import annotations

import pytest

from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.workers.pool import TrialFailed, shown_in_flower
from highnoon.workers.supervisor import EndedAttempt


def ended(ending: Ending, **fields: object) -> EndedAttempt:
    return EndedAttempt(study="digits", trial=7, outcome=Outcome(ending=ending, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.TIMED_OUT, Ending.KILLED, Ending.LOST])
def test_a_trial_that_went_wrong_is_a_failed_task_with_its_study_and_number(ending: Ending) -> None:
    with pytest.raises(TrialFailed, match=rf"study digits, trial 7: {ending}: ValueError: no data"):
        shown_in_flower(ended(ending, message="ValueError: no data"))


def test_every_other_end_is_a_success() -> None:
    assert shown_in_flower(ended(Ending.COMPLETED, value=0.25)) == "study digits, trial 7: completed 0.25"
    assert shown_in_flower(ended(Ending.PRUNED)) == "study digits, trial 7: pruned"
    assert shown_in_flower(ended(Ending.STOPPED, message="memory")) == "study digits, trial 7: stopped"
    assert shown_in_flower(ended(Ending.RELEASED)) == "study digits, trial 7: released"
    assert shown_in_flower(None).startswith("no attempt")
