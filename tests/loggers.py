"""Finished trials for the tests of loggers: a study with one trial of each ending, passed on as a runner does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial

from highnoon.shared.domain.lease import LostAttempt
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy

SPACE = {"rate": ["log_uniform", 1e-5, 1e-1], "units": ["int", 1, 9], "kind": ["categorical", ["a", 'b "c",\nd', None]]}

POINTS = (
    {"rate": 0.01, "units": 3, "kind": "a"},
    {"rate": 0.02, "units": 4, "kind": 'b "c",\nd'},
    {"rate": 0.03, "units": 5, "kind": None},
)
ENDINGS = (
    Outcome(ending=Ending.COMPLETED, value=0.75, loss=0.5, params_count=1200, active_params=600),
    Outcome(ending=Ending.STOPPED, cause="memory_guard", message="needs 3 GB"),
    Outcome(ending=Ending.FAILED, cause="exception", message="ValueError: line one\nline two"),
)
REPORTS = [Report(step=0, value=2.0), Report(step=1, value=1.0)]


def study(name: str = "digits", store: OptunaStore | None = None, **keys: Any) -> OptunaStudy:
    """In memory unless it is given a store."""
    written = {"name": name, "objective": "in.process:objective", "search_space": SPACE, **keys}
    spec = StudySpec.from_json(written)
    store = store or OptunaStore(None)
    store.create_study(spec.name, spec.direction, spec.scoring)
    return store.open(spec)


def with_one_trial_of_each_ending(name: str = "digits") -> OptunaStudy:
    """COMPLETE with a size and reports, PRUNED by the memory guard, FAIL by an exception."""
    made = study(name)
    for point, outcome in zip(POINTS, ENDINGS, strict=True):
        asked = made.start_trial(ordinal=0, before=LostAttempt(params=point, trial_number=999))
        if outcome.ending is Ending.COMPLETED:
            made.report_many(asked.trial_id, REPORTS)
        made.finish_trial(asked.trial_id, outcome)
    return made


def log(made: OptunaStudy, logger: Callable[[Study, FrozenTrial], object]) -> None:
    """As a callback is called, without the border that only logs what it raises."""
    for trial in made.ended():
        logger(made.optuna_study, trial)
