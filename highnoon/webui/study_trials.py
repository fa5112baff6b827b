"""A study's trials at one moment, and what is found out about them once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

from highnoon.shared.domain.param import SearchSpace
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.study_view import StudyView
from highnoon.shared.views.trials import best_of, cause_of, ending_of, front_by_objectives

_TRIAL_BYTES, _REPORT_BYTES = 3000, 130
"""About what each takes; measured with six parameters."""

_serials = count()


@dataclass(frozen=True, kw_only=True)
class StudyTrials:
    """A study's trials at one moment; `version` changes whenever any of them did."""

    trials: tuple[Trial, ...]
    space: SearchSpace
    maximize: bool
    version: tuple[int, int, tuple[tuple[TrialState, int, int], ...]]
    not_ended: tuple[Trial, ...] = ()
    """Those that may change, by number."""
    objectives: tuple[str, ...] = ()
    """The names of several."""
    directions: tuple[str, ...] = ()
    serial: int = field(default_factory=lambda: next(_serials))
    """Of no other reading in this process."""

    @classmethod
    def read(cls, view: StudyView, before: StudyTrials | None) -> StudyTrials:
        """The trials now; the value before where nothing has changed since."""
        trials, not_ended = view.read()
        # A waiting one begins to run, and one that defines its space gets parameters, without a report.
        progress = tuple((trial.state, len(trial.params), len(trial.reports)) for trial in not_ended)
        version = (len(trials), len(trials) - len(not_ended), progress)
        if before is not None and before.version == version:
            return before
        directions = tuple(view.direction.split(", "))
        return cls(
            trials=tuple(trials),
            not_ended=tuple(not_ended),
            space=view.space(),
            maximize=directions[0] == "maximize",
            version=version,
            objectives=view.objectives(),
            directions=directions,
        )

    @cached_property
    def best(self) -> Trial | None:
        """The best completed and feasible trial; None also where several objectives have a front."""
        return best_of(self.trials, maximize=self.maximize)

    @cached_property
    def has_sizes(self) -> bool:
        """Whether any trial has reported its number of parameters."""
        return any(trial.params_count is not None for trial in self.trials)

    @cached_property
    def causes(self) -> list[str]:
        """How and why trials ended, by name."""
        return sorted({word for trial in self.trials for word in (cause_of(trial), ending_of(trial)) if word})

    @cached_property
    def front(self) -> list[Trial]:
        """The best trials of several objectives."""
        return front_by_objectives(self.trials, self.directions) if self.objectives else []

    @cached_property
    def size_bytes(self) -> int:
        """About the memory that they take, with Optuna's own copy."""
        return len(self.trials) * _TRIAL_BYTES + sum(len(trial.reports) for trial in self.trials) * _REPORT_BYTES
