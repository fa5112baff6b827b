"""From an Outcome to what Optuna is told of it, and whether two tellings agree. Pure; writes nothing."""

from __future__ import annotations

import math
from typing import Any

from optuna.trial import TrialState

from highnoon.shared.domain.errors import InvariantBroken
from highnoon.shared.domain.states import TOLD_AS, Ending
from highnoon.shared.domain.tracebacks import TRACEBACK_LIMIT, shortened
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store.optuna_trials import Standing, Verdict

ENDING = "highnoon:ending"
CAUSE = "highnoon:cause"
MESSAGE = "highnoon:message"
TRACEBACK = "highnoon:traceback"

LOSS = "highnoon:loss"
PARAMS = "highnoon:params"
ACTIVE_PARAMS = "highnoon:active_params"
SCORE = "highnoon:score"

_CONSTRAINT = "constraints:"
"""Optuna's spelling of a constraint's name; above 0 is infeasible, so that samplers leave the region."""

_NAMED = {"param_budget": "param_budget"}
"""The constraint that a cause of a stop stands for. All others are of one kind: it did not fit into memory."""

_LEAST_MISS = 1e-3
"""A stop is a miss, also where what was measured last was just within bounds."""


def verdict_of(outcome: Outcome) -> Verdict:
    """All that Optuna keeps of an attempt. Raises InvariantBroken for a completed one without a number."""
    state = TrialState[TOLD_AS[outcome.ending]]
    return Verdict(
        state=state,
        value=_value(outcome) if state is not TrialState.FAIL else None,
        user_attrs={**_said(outcome), **_measured(outcome)},
        system_attrs=_constraints(outcome),
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


def _constraints(outcome: Outcome) -> dict[str, float]:
    """How far a stopped trial was from feasible: 1.0 where nobody measured it."""
    if outcome.ending is not Ending.STOPPED:
        return {}
    missed_by = 1.0 if outcome.constraint is None else max(outcome.constraint, _LEAST_MISS)
    return {_CONSTRAINT + _NAMED.get(outcome.cause or "", "memory"): missed_by}


def _measured(outcome: Outcome) -> dict[str, Any]:
    """Loss, size and score of a trial that said its size; of the others the value tells all. JSON has no infinity."""
    if outcome.params_count is None:
        return {}
    written = outcome.to_json()
    found = {
        LOSS: written["loss"],
        PARAMS: outcome.params_count,
        ACTIVE_PARAMS: outcome.active_params,
        SCORE: written["value"],
    }
    return {key: value for key, value in found.items() if value is not None}


def _said(outcome: Outcome) -> dict[str, str]:
    said = {
        ENDING: str(outcome.ending),
        CAUSE: outcome.cause or "",
        MESSAGE: outcome.message,
        TRACEBACK: shortened(outcome.traceback, TRACEBACK_LIMIT),
    }
    return {key: text for key, text in said.items() if text}
