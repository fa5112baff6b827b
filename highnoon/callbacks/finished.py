"""A finished trial as the loggers write it, from what Optuna hands to a callback. Writes nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from highnoon.shared.domain.trial import Trial

if TYPE_CHECKING:
    from highnoon.shared.store.callbacks import FrozenTrial, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTrial:
    """One trial of the study of that name. `cause` and `message` are empty where nothing went wrong."""

    study: str
    trial: Trial
    cause: str = ""
    message: str = ""

    @property
    def key(self) -> str:
        """What no other trial of this study's name has: the number, and when it began.

        The number alone is not enough. A study in memory begins with trial 0 each time that its program runs.
        """
        began = self.trial.started_at or self.trial.ended_at
        return f"{self.trial.number:05d}" + ("" if began is None else f"-{began:%Y%m%dT%H%M%S%f}")

    @property
    def results(self) -> dict[str, float]:
        """Score, loss, size and duration, as far as they are known; the score is what the sampler was told."""
        trial = self.trial
        found = {
            "score": trial.value,
            "loss": trial.loss,
            "model_params": trial.params_count,
            "active_params": trial.active_params,
            "duration_s": trial.duration_s,
        }
        return {name: number for name, number in found.items() if number is not None}

    @property
    def span_ms(self) -> tuple[int, int]:
        """Start and end in milliseconds since 1970; a trial that never began has no length."""
        ended = self.trial.ended_at or self.trial.started_at
        began = self.trial.started_at or ended
        return _ms(began), _ms(ended)


def finished(study: Study, frozen: FrozenTrial) -> FinishedTrial | None:
    """What a callback was called with, to write it; None for a trial that still runs or waits."""
    if not frozen.state.is_finished():
        return None
    from highnoon.shared.store.optuna_trials import trial_of
    from highnoon.shared.store.trial_results import CAUSE, MESSAGE

    trial = trial_of(frozen)
    return FinishedTrial(
        study=study.study_name,
        trial=trial,
        cause=str(trial.attrs.get(CAUSE, "")),
        message=str(trial.attrs.get(MESSAGE, "")),
    )


def _ms(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1000)
