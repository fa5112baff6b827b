"""From an Outcome to what Optuna keeps of it. Pure; does not import Optuna, which the agent never needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from highnoon.shared.domain.errors import InvariantBroken
from highnoon.shared.domain.states import (
    CAUSE,
    ENDING,
    MEMORY_CAUSES,
    MESSAGE,
    OPTUNA_STATE,
    TRACEBACK,
    Cause,
    Ending,
    TrialState,
)
from highnoon.shared.domain.tracebacks import TRACEBACK_LIMIT, shortened
from highnoon.shared.domain.trial import Outcome

LOSS = "highnoon:loss"
PARAMS = "highnoon:params"
ACTIVE_PARAMS = "highnoon:active_params"
SCORE = "highnoon:score"

CONSTRAINT = "constraints:"
"""Optuna's prefix of a constraint's name; above 0 is infeasible, so that samplers leave the region."""

_LEAST_MISS = 1e-3
"""A stop is a miss, also where what was measured last was just within bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """All that is written when a trial ends. A PRUNED one without a value takes its last report.

    `values` are of a COMPLETE trial of several objectives. With `has_goals` a PRUNED one has no value at all: its
    reports are of one objective.
    """

    state: TrialState
    value: float | None = None
    values: tuple[float, ...] = ()
    has_goals: bool = False
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


def trial_result(outcome: Outcome, *, has_goals: bool = False) -> TrialResult:
    """All that Optuna keeps of an attempt. Raises InvariantBroken for a completed one without a number.

    `has_goals`: its study has several objectives.
    """
    state = OPTUNA_STATE[outcome.ending]
    return TrialResult(
        state=state,
        value=_value(outcome) if state is not TrialState.FAIL and not has_goals else None,
        values=outcome.values if state is TrialState.COMPLETE else (),
        has_goals=has_goals,
        user_attrs={**outcome.metrics, **_described(outcome), **_measured(outcome)},
        system_attrs={**_constraints(outcome), **dict(artifact.attr for artifact in outcome.artifacts)},
    )


def failure(reason: str) -> TrialResult:
    """FAIL for a trial that will have no Outcome: a point that cannot be run."""
    return TrialResult(state=TrialState.FAIL, user_attrs={CAUSE: reason})


def result_json(result: TrialResult) -> str:
    """As `hn_end_trial_1` in functions.sql takes it."""
    return json_text(
        {
            "state": result.state,
            "value": None if result.value is None else repr(float(result.value)),
            **({"values": [repr(float(value)) for value in result.values]} if result.has_goals else {}),
            "user_attrs": attr_texts(result.user_attrs),
            "system_attrs": attr_texts(result.system_attrs),
        }
    )


def attr_texts(attrs: Mapping[str, Any]) -> dict[str, str]:
    """Each value as the JSON text that Optuna stores."""
    return {key: json_text(value) for key, value in attrs.items()}


def json_text(value: object) -> str:
    """JSON that PostgreSQL can hold as text: NUL, and half a surrogate pair, are replaced."""
    return json.dumps(_storable(value))


def _value(outcome: Outcome) -> float | None:
    if outcome.ending is Ending.COMPLETED and (outcome.value is None or math.isnan(outcome.value)):
        raise InvariantBroken(f"an attempt counts as completed with the value {outcome.value}")
    return None if outcome.value is None or math.isnan(outcome.value) else float(outcome.value)


def _constraints(outcome: Outcome) -> dict[str, float]:
    """How far the trial is from each constraint; one that memory has stopped 1.0 where it was not measured."""
    if outcome.ending is not Ending.STOPPED:
        return {CONSTRAINT + name: miss for name, miss in outcome.misses.items()}
    is_memory = outcome.cause in MEMORY_CAUSES
    missed_by = 1.0 if is_memory and outcome.constraint is None else outcome.constraint
    name = "memory" if is_memory else outcome.cause or Cause.STOPPED
    return {} if missed_by is None else {f"{CONSTRAINT}{name}": max(missed_by, _LEAST_MISS)}


def _measured(outcome: Outcome) -> dict[str, Any]:
    """Loss, size and score of a trial that reported its size; the others have their value. JSON has no infinity."""
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


def _described(outcome: Outcome) -> dict[str, str]:
    texts = {
        ENDING: str(outcome.ending),
        CAUSE: outcome.cause or "",
        MESSAGE: outcome.message,
        TRACEBACK: shortened(outcome.traceback, TRACEBACK_LIMIT),
    }
    return {key: text for key, text in texts.items() if text}


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list | tuple) else value
