"""What the dashboard keeps of a study is read again whenever one of its trials has changed."""

from __future__ import annotations

from contextlib import nullcontext

import optuna
from optuna.distributions import FloatDistribution

from highnoon.shared.domain.states import TrialState
from highnoon.shared.store.study_view import StudyView
from highnoon.webui.study_trials import StudyTrials


def test_enqueued_trial_is_shown_as_running_before_it_reports() -> None:
    study = optuna.create_study()
    view = StudyView(study, nullcontext)
    study.enqueue_trial({"x": 0.5})
    waiting = StudyTrials.read(view, None)
    assert [trial.state for trial in waiting.trials] == [TrialState.WAITING]
    assert StudyTrials.read(view, waiting) is waiting, "nothing has changed"

    trial = study.ask()
    begun = StudyTrials.read(view, waiting)
    assert [trial.state for trial in begun.trials] == [TrialState.RUNNING]

    # One that defines its space as it runs
    trial.suggest_float("x", 0.0, 1.0)
    placed = StudyTrials.read(view, begun)
    assert placed.trials[0].params == {"x": 0.5} and list(placed.space) == ["x"]

    trial.report(0.25, 0)
    reported = StudyTrials.read(view, placed)
    assert len(reported.trials[0].reports) == 1 and StudyTrials.read(view, reported) is reported

    study.tell(trial, 0.25)
    study.add_trial(optuna.create_trial(value=1.0, params={"x": 1.0}, distributions={"x": FloatDistribution(0, 1)}))
    assert [trial.state for trial in StudyTrials.read(view, reported).trials] == [TrialState.COMPLETE] * 2
