"""A study whose history is read at most once: for the length of one decision of a sampler or a pruner.

What is private in Optuna 5.0.x and used here (`Study._storage`, `Study._study_id`) is checked by
tests/contract/test_samplers.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container
from typing import Any, cast

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

PENDING = -1
"""Number and id of the trial that is being sampled for; no trial of any storage has them."""


def new_trial(trial_id: int = PENDING, number: int = PENDING) -> FrozenTrial:
    """A RUNNING trial without parameters and reports, for a sampler or a pruner."""
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def for_sampler(study: Study, trial: FrozenTrial) -> FrozenTrial:
    """The trial without its reports where TPE would rank a pruned one by them: of several objectives it cannot."""
    if len(study.directions) == 1 or trial.state is not TrialState.PRUNED or not trial.intermediate_values:
        return trial
    one = copy.copy(trial)
    one.intermediate_values = {}
    return one


See = Callable[[list[FrozenTrial]], list[FrozenTrial]]
"""What a sampler gets in the place of a study's trials."""


def snapshot_of(
    study: Study,
    pending: FrozenTrial | None = None,
    see: See | None = None,
) -> Study:
    """The study for the length of one decision: its history is read at most once, and only when it is needed."""
    view = copy.copy(study)
    view._storage = cast(BaseStorage, HistorySnapshot(study, pending, see))
    return view


class HistorySnapshot:
    """A study's storage that reads the history once and keeps a pending trial's attributes to itself.

    Everything else goes to the real storage: pruners, for example, write the rungs that a running trial has reached.
    """

    def __init__(
        self,
        study: Study,
        pending: FrozenTrial | None,
        see: See | None = None,
    ) -> None:
        self._storage = study._storage
        self._see = see
        self._study_id = study._study_id
        self._pending = pending
        self._trials: list[FrozenTrial] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As the storage gave it the first time."""
        if self._trials is None:
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            self._trials = trials if self._see is None else self._see(trials)
        trials = self._trials if states is None else [trial for trial in self._trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_study_id_from_name(self, study_name: str) -> int:
        """Known already; Hyperband asks for it at every decision."""
        return self._study_id

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """The pending trial's own, or the storage's."""
        if self._pending is not None and trial_id == PENDING:
            return dict(self._pending.system_attrs)
        return self._storage.get_trial_system_attrs(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Kept for the creation of the pending trial, or written to the storage."""
        if self._pending is not None and trial_id == PENDING:
            self._pending.system_attrs[key] = value
        else:
            self._storage.set_trial_system_attr(trial_id, key, value)
