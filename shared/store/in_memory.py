"""The trials of one study in any of Optuna's storages, by Optuna's own interface: for studies held in memory.

Several steps for what is one transaction in `sql`: safe between threads, and a crash takes the whole memory along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.domain.trial import Report
from highnoon.shared.search.samplers import Distributions
from highnoon.shared.store.optuna_trials import Asked, Birth, OwnedTrial, Standing, Verdict, Waiting, owner_in


class MemoryTrials:
    """Implements Trials."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id

    def create(self, birth: Birth) -> Asked:
        """As the protocol says."""
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params=dict(birth.params),
            distributions=dict(birth.distributions),
            user_attrs=dict(birth.user_attrs),
            system_attrs=dict(birth.system_attrs),
            intermediate_values={},
        )
        try:
            trial_id = self._storage.create_new_trial(self._study_id, template)
        except KeyError:
            raise UnknownStudy("the study was deleted") from None
        number = self._storage.get_trial_number_from_id(trial_id)
        return Asked(trial_id=trial_id, number=number, params=birth.params)

    def start_waiting(self, prepare: Callable[[Waiting], Birth]) -> Asked | None:
        """As the protocol says."""
        for trial in self._all(TrialState.WAITING):
            if self._taken(trial._trial_id):
                fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
                birth = prepare(Waiting(trial_id=trial._trial_id, number=trial.number, fixed=fixed))
                self._complete(trial, birth)
                return Asked(trial_id=trial._trial_id, number=trial.number, params=birth.params)
        return None

    def add_reports(self, trial_id: int, reports: Sequence[Report]) -> None:
        """As the protocol says."""
        trial = self._storage.get_trial(trial_id)
        if trial.state is not TrialState.RUNNING:
            return
        first = {report.step: report.value for report in reversed(reports)}
        for step in sorted(first.keys() - trial.intermediate_values.keys()):
            self._storage.set_trial_intermediate_value(trial_id, step, first[step])

    def finish(self, trial_id: int, verdict: Verdict) -> Standing | None:
        """As the protocol says."""
        try:
            trial = self._storage.get_trial(trial_id)
        except KeyError:
            raise UnknownStudy(f"the study of trial id {trial_id} was deleted") from None
        try:
            self._write_attrs(trial_id, verdict)
            value = verdict.value if verdict.state is not TrialState.PRUNED else _last_value(trial, verdict)
            self._storage.set_trial_state_values(trial_id, verdict.state, None if value is None else [value])
        except UpdateFinishedTrialError:
            stands = self._storage.get_trial(trial_id)
            return Standing(state=stands.state, value=stands.value)
        return None

    def owned_running(self) -> list[OwnedTrial]:
        """As the protocol says."""
        return [
            OwnedTrial(trial_id=trial._trial_id, number=trial.number, owner=owner)
            for trial in self._all(TrialState.RUNNING)
            if (owner := owner_in(trial.user_attrs)) is not None
        ]

    def latest_domains(self) -> Distributions:
        """As the protocol says."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return next((dict(t.distributions) for t in reversed(trials) if t.state is not TrialState.WAITING), {})

    def _all(self, state: TrialState) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=False, states=(state,))

    def _taken(self, trial_id: int) -> bool:
        """Whether the trial became RUNNING by this call; another thread may be quicker."""
        try:
            return self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _complete(self, trial: FrozenTrial, birth: Birth) -> None:
        for name in birth.params.keys() - trial.params.keys():
            domain = birth.distributions[name]
            inner = domain.to_internal_repr(birth.params[name])
            self._storage.set_trial_param(trial._trial_id, name, inner, domain)
        self._write_attrs(trial._trial_id, birth)

    def _write_attrs(self, trial_id: int, source: Birth | Verdict) -> None:
        for key, value in source.user_attrs.items():
            self._storage.set_trial_user_attr(trial_id, key, value)
        for key, value in source.system_attrs.items():
            self._storage.set_trial_system_attr(trial_id, key, value)


def _last_value(trial: FrozenTrial, verdict: Verdict) -> float | None:
    if verdict.value is not None or trial.last_step is None:
        return verdict.value
    last = trial.intermediate_values[trial.last_step]
    return None if math.isnan(last) else last
