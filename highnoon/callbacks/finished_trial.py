"""A finished trial as the loggers write it, from what Optuna gives to a callback; and what all loggers share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from highnoon.shared.domain.trial import Trial

if TYPE_CHECKING:
    from highnoon.shared.store.callbacks import FrozenTrial, Study


_NAMES_OF_LOGGERS = frozenset(
    {"study", "trial", "state", "cause", "message", "report", "duration_s", "model_params", "active_params"}
)
"""What the loggers call their own entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTrial:
    """One trial of the named study. `cause` and `message` are empty where nothing went wrong.

    `objectives` are the names of several, in the order of the trial's values.
    """

    study: str
    trial: Trial
    objectives: tuple[str, ...] = ()
    cause: str = ""
    message: str = ""

    @property
    def key(self) -> str:
        """Unique among the trials of this study's name: the number, and when it began.

        The number alone is not enough: a study in memory begins with trial 0 each time that its program runs.
        """
        began = self.trial.started_at or self.trial.ended_at
        return f"{self.trial.number:05d}" + ("" if began is None else f"-{began:%Y%m%dT%H%M%S%f}")

    @property
    def results(self) -> dict[str, float]:
        """What was measured, and the value of each of several objectives by its name.

        An objective with the name of something else that is logged is called `value:NAME`.
        """
        measured = self.measured
        return measured | {
            f"value:{name}" if name in measured or name in _NAMES_OF_LOGGERS else name: value
            for name, value in self.values.items()
        }

    @property
    def measured(self) -> dict[str, float]:
        """Score, loss, size and duration, as far as they are known; the score is what the sampler received.

        Of several objectives there is no score.
        """
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
    def values(self) -> dict[str, float]:
        """The values of several objectives; none of a trial that has not completed."""
        return dict(zip(self.objectives, self.trial.values, strict=False))

    @property
    def span_ms(self) -> tuple[int, int]:
        """Start and end in milliseconds since 1970; a trial that never began has no length."""
        ended = self.trial.ended_at or self.trial.started_at
        began = self.trial.started_at or ended
        return _ms(began), _ms(ended)


class TrialLogger:
    """Called as f(study, trial) by a study. Subclasses write a finished trial, once however often they are called."""

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Writes the trial, unless it still runs or waits."""
        if trial.state.is_finished():
            self._write(_finished(study, trial))

    def _write(self, ended: FinishedTrial) -> None:
        raise NotImplementedError


def _finished(study: Study, frozen: FrozenTrial) -> FinishedTrial:
    from highnoon.shared.domain.states import CAUSE, MESSAGE
    from highnoon.shared.store.optuna_trials import trial_of

    trial = trial_of(frozen)
    count = len(study.directions)
    return FinishedTrial(
        study=study.study_name,
        trial=trial,
        objectives=tuple(study.metric_names or map(str, range(count))) if count > 1 else (),
        cause=str(trial.attrs.get(CAUSE, "")),
        message=str(trial.attrs.get(MESSAGE, "")),
    )


def _ms(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1000)
