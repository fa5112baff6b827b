"""From Optuna's frozen trials to ours, and what a retry takes over from the trial that was lost. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from optuna.trial import FrozenTrial

from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Report, Trial
from highnoon.shared.store.trial_results import ACTIVE_PARAMS, LOSS, PARAMS

_OF_ONE_RUN = ("completed_rung_", "constraints")
"""System attributes that say how a trial went, not what was asked: a retry starts without them."""


def trial_of(frozen: FrozenTrial) -> Trial:
    """The trial as the rest of the system sees it; shares nothing that the study's cache holds."""
    return Trial(
        number=frozen.number,
        state=TrialState[frozen.state.name],
        params=dict(frozen.params),
        value=frozen.value,
        loss=_number(frozen.user_attrs.get(LOSS, frozen.value)),
        params_count=frozen.user_attrs.get(PARAMS),
        active_params=frozen.user_attrs.get(ACTIVE_PARAMS),
        reports=tuple(Report(step=step, value=value) for step, value in sorted(frozen.intermediate_values.items())),
        started_at=_aware(frozen.datetime_start),
        ended_at=_aware(frozen.datetime_complete),
        attrs=dict(frozen.user_attrs),
    )


def inherited_by_retry(failed: FrozenTrial) -> dict[str, Any]:
    """System attributes of a retry, as Optuna's own retry callback writes them: the first trial, and all so far."""
    kept = {key: value for key, value in failed.system_attrs.items() if not key.startswith(_OF_ONE_RUN)}
    history = [*kept.get("retry_history", ()), failed.number]
    return {**kept, "failed_trial": history[0], "retry_history": history}


def _number(written: float | str | None) -> float | None:
    """Infinity is written as text."""
    return None if written is None else float(written)


def _aware(local: datetime | None) -> datetime | None:
    """Optuna gives out naive local time."""
    return None if local is None else local.astimezone(timezone.utc)
