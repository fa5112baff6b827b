"""The question that the contract suites of studies ask, and short ways to say it."""

from __future__ import annotations

from typing import Any

from highnoon.shared.domain.lease import LostAttempt
from highnoon.shared.domain.param import Categorical, Float, Int, SearchSpace
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Params

SPACE: SearchSpace = {
    "rate": Float(low=1e-5, high=1e-1, log=True),
    "dropout": Float(low=0.0, high=0.5),
    "width": Int(low=32, high=512, step=32),
    "optimizer": Categorical(choices=("adam", "sgd", None, True)),
}
POINT: Params = {"rate": 1e-3, "dropout": 0.25, "width": 64, "optimizer": "sgd"}


def spec_of(**changes: Any) -> StudySpec:
    asked = {
        "name": "digits",
        "objective": "objectives:any",
        "search_space": SPACE,
        "sampler": SamplerSpec(name="random"),
    }
    return StudySpec(**{**asked, **changes})


def completed(value: float = 0.25) -> Outcome:
    return Outcome(ending=Ending.COMPLETED, value=value)


def failed(cause: str = "lost") -> Outcome:
    return Outcome(ending=Ending.FAILED, cause=cause)


def before(params: Params, number: int = 999) -> LostAttempt:
    """An attempt at these parameters; without a number, one that has left no trial."""
    return LostAttempt(params=params, trial_number=number)
