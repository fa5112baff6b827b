"""A study's trials at one moment, and what a trial's attributes say of its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from highnoon.shared.domain.space import SearchSpace, written_form
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.study_view import StudyView

CAUSE, ENDING, MESSAGE, TICKET = "highnoon:cause", "highnoon:ending", "highnoon:message", "highnoon:ticket"

_ENDED = frozenset({TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A study's trials at one moment; `version` changes whenever any of them did."""

    trials: tuple[Trial, ...]
    space: SearchSpace
    maximize: bool
    version: tuple[int, int, int]

    @property
    def best(self) -> Trial | None:
        """The best completed trial."""
        return best_of(self.trials, maximize=self.maximize)

    @property
    def written_space(self) -> dict[str, Any]:
        """The search space in the grammar of a study file."""
        return {name: written_form(param) for name, param in self.space.items()}


def taken(view: StudyView, before: Snapshot | None) -> Snapshot:
    """What the view shows now; the snapshot before where nothing has changed since."""
    trials = tuple(view.trials())
    ended = sum(map(has_ended, trials))
    reports = sum(len(trial.reports) for trial in trials if trial.state is TrialState.RUNNING)
    version = (len(trials), ended, reports)
    if before is not None and before.version == version:
        return before
    return Snapshot(trials=trials, space=view.space(), maximize=view.direction == "maximize", version=version)


def best_of(trials: tuple[Trial, ...], *, maximize: bool) -> Trial | None:
    """The best completed trial that has a value; the first of equals."""
    valued = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    if not valued:
        return None
    return (max if maximize else min)(valued, key=lambda trial: trial.value or 0.0)


def has_ended(trial: Trial) -> bool:
    """Whether nothing about it will change any more."""
    return trial.state in _ENDED


def cause_of(trial: Trial) -> str:
    """Why a trial ended early; empty when there is nothing to explain."""
    return str(trial.attrs.get(CAUSE) or "")


def ending_of(trial: Trial) -> str:
    """How its attempt ended, in the ledger's words; Optuna's where there are none."""
    return str(trial.attrs.get(ENDING) or trial.state.lower())
