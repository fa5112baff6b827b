"""From an Outcome to what Optuna is told of it, and whether two tellings agree. Pure; writes nothing."""

from __future__ import annotations

import math

from optuna.trial import TrialState

from shared.errors import InvariantBroken
from shared.states import TOLD_AS, Ending
from shared.studies.trials import Standing, Verdict
from shared.tracebacks import TRACEBACK_LIMIT, shortened
from shared.trial import Outcome

ENDING = "highnoon:ending"
CAUSE = "highnoon:cause"
MESSAGE = "highnoon:message"
TRACEBACK = "highnoon:traceback"

DID_NOT_FIT = "constraints:memory"
"""Optuna's spelling of the constraint `memory`; above 0 is infeasible, so that samplers leave the region."""


def verdict_of(outcome: Outcome) -> Verdict:
    """All that Optuna keeps of an attempt. Raises InvariantBroken for a completed one without a number."""
    state = TrialState[TOLD_AS[outcome.ending]]
    return Verdict(
        state=state,
        value=_value(outcome) if state is not TrialState.FAIL else None,
        user_attrs=_said(outcome),
        system_attrs={DID_NOT_FIT: 1.0} if outcome.ending is Ending.STOPPED else {},
    )


def failure(reason: str) -> Verdict:
    """FAIL for a trial that nobody will give an Outcome: an orphan, a point that cannot be run."""
    return Verdict(state=TrialState.FAIL, user_attrs={CAUSE: reason})


def agrees(standing: Standing, verdict: Verdict) -> bool:
    """Whether a trial that had ended already ended just so. A pruned trial's value may be its last report."""
    if standing.state is not verdict.state:
        return False
    return standing.value == verdict.value or (verdict.state is TrialState.PRUNED and verdict.value is None)


def _value(outcome: Outcome) -> float | None:
    if outcome.ending is Ending.COMPLETED and (outcome.value is None or math.isnan(outcome.value)):
        raise InvariantBroken(f"an attempt counts as completed with the value {outcome.value}")
    return None if outcome.value is None or math.isnan(outcome.value) else float(outcome.value)


def _said(outcome: Outcome) -> dict[str, str]:
    said = {
        ENDING: str(outcome.ending),
        CAUSE: outcome.cause or "",
        MESSAGE: outcome.message,
        TRACEBACK: shortened(outcome.traceback, TRACEBACK_LIMIT),
    }
    return {key: text for key, text in said.items() if text}
