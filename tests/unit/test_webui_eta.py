"""The time to go on a study's page."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from highnoon.shared.domain.states import StudyState, TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.views.studies import StudySummary
from highnoon.webui.study_pages import eta_s

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
RECORD = StudyRecord(
    id=1, name="digits", state=StudyState.RUNNING, stop_reason=None, queue="cpu", spec={},
    submitted_at=0.0, started_at=0.0, ended_at=None,
)  # fmt: skip
STUDY = StudySummary(
    name="digits", direction="minimize", total=100, complete=39, pruned=0, failed=0, running=2, waiting=58, best=None,
    closed=40, record=RECORD,
)  # fmt: skip


def took(*seconds: float) -> list[Trial]:
    return [
        Trial(
            number=number,
            state=TrialState.COMPLETE,
            params={},
            started_at=START,
            ended_at=START + timedelta(seconds=one),
        )
        for number, one in enumerate(seconds)
    ]


def test_it_is_that_of_the_last_trials_and_of_as_many_as_run_at_a_time() -> None:
    assert eta_s(STUDY, took(*[1000.0] * 30, *[10.0] * 30)) == 10.0 * 60 / 2


def test_there_is_none_while_nothing_runs_and_after_trials_were_added_to_a_study_that_is_over() -> None:
    assert eta_s(replace(STUDY, running=0), took(*[10.0] * 30)) is None
    assert eta_s(replace(STUDY, record=None), took(*[10.0] * 30)) is None
    assert eta_s(replace(STUDY, total=40), took(*[10.0] * 30)) is None
    assert eta_s(STUDY, took(10.0, 10.0)) is None
