"""The trials of one study that is held in memory, by the interface of Optuna's storage.

Several steps for what is one transaction in `optuna_sql`: safe between threads, and a crash loses the memory anyway.

What is private in Optuna 5.0.x and used here (the storage's lock, and which domain it has last seen of a parameter) is
checked by tests/contract/test_studies.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.artifact import Artifact, artifacts_in
from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.domain.lease import EnqueuedTrial
from highnoon.shared.domain.metric_history import METRIC_HISTORY
from highnoon.shared.domain.states import ENDING, TICKET
from highnoon.shared.domain.states import TrialState as States
from highnoon.shared.domain.trial import Report
from highnoon.shared.search.samplers import Distributions
from highnoon.shared.store.optuna_trials import EarlierEnding, NewTrial, StartedTrial, stored_values
from highnoon.shared.store.trial_results import TrialResult


class MemoryTrials:
    """Implements Trials."""

    def __init__(self, storage: InMemoryStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id

    def waiting(self) -> EnqueuedTrial | None:
        """As Trials describes it."""
        trial = next(iter(self._all(TrialState.WAITING)), None)
        if trial is None:
            return None
        fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        return EnqueuedTrial(trial_id=trial._trial_id, number=trial.number, fixed=fixed)

    def start(self, new: NewTrial) -> StartedTrial | None:
        """As Trials describes it."""
        trial_id = new.waiting_trial_id
        with self._storage._lock:
            if new.begun not in (None, self._begun()):
                return None
            if trial_id is None:
                trial_id = self._create(new)
            elif not self._taken(trial_id):
                return None
            else:
                self._complete(self._storage.get_trial(trial_id), new)
        number = self._storage.get_trial_number_from_id(trial_id)
        return StartedTrial(trial_id=trial_id, number=number, params=new.params)

    def add(self, trial_id: int, new: NewTrial) -> None:
        """As Trials describes it."""
        trial = self._storage.get_trial(trial_id)
        if trial.state is TrialState.RUNNING:
            self._complete(trial, new)

    def add_reports(self, trial_id: int, reports: Sequence[Report]) -> None:
        """As Trials describes it."""
        trial = self._storage.get_trial(trial_id)
        if trial.state is not TrialState.RUNNING:
            return
        first = {report.step: report.value for report in reversed(reports)}
        for step in sorted(first.keys() - trial.intermediate_values.keys()):
            self._storage.set_trial_intermediate_value(trial_id, step, first[step])

    def finish(self, trial_id: int, result: TrialResult) -> EarlierEnding | None:
        """As Trials describes it."""
        try:
            trial = self._storage.get_trial(trial_id)
        except KeyError:
            raise UnknownStudy(f"the study of trial id {trial_id} was deleted") from None
        try:
            self._write_attrs(trial_id, result)
            values = stored_values(trial, result)
            self._storage.set_trial_state_values(trial_id, TrialState[result.state], values)
        except UpdateFinishedTrialError:
            ended = self._storage.get_trial(trial_id)
            return EarlierEnding(state=States[ended.state.name], values=tuple(ended.values or ()))
        return None

    def own_domains(self) -> Distributions:
        """As Trials describes it."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        own = (trial for trial in reversed(trials) if {TICKET, ENDING} & trial.user_attrs.keys())
        return next((dict(trial.distributions) for trial in own), {})

    def artifacts(self, number: int | None = None) -> dict[int, list[Artifact]]:
        """As Trials describes it."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        found = {one.number: artifacts_in(one.system_attrs) for one in trials if number in (None, one.number)}
        return {number: artifacts for number, artifacts in found.items() if artifacts}

    def remove_artifacts(self, artifacts: Collection[Artifact]) -> None:
        """As Trials describes it: `OptunaStudy.remove_artifacts` takes them out of what is kept in memory."""

    def metric_history(self, number: int) -> object:
        """As Trials describes it."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        return self._storage.get_trial(trial_id).system_attrs.get(METRIC_HISTORY)

    def keep_study_attr(self, key: str, value: Any) -> Any:
        """As Trials describes it."""
        kept = self._storage.get_study_user_attrs(self._study_id)
        if key not in kept:
            self._storage.set_study_user_attr(self._study_id, key, value)
        return kept.get(key, value)

    def _create(self, new: NewTrial) -> int:
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={name: value for name, value in new.params.items() if name in new.distributions},
            distributions={name: domain for name, domain in new.distributions.items() if name in new.params},
            user_attrs=dict(new.user_attrs),
            system_attrs=dict(new.system_attrs),
            intermediate_values={},
        )
        try:
            return self._storage.create_new_trial(self._study_id, template)
        except KeyError:
            raise UnknownStudy("the study was deleted") from None

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        """In these states; in any without one."""
        try:
            return self._storage.get_all_trials(self._study_id, deepcopy=False, states=states or None)
        except KeyError:
            raise UnknownStudy("the study was deleted") from None

    def _begun(self) -> int:
        return sum(trial.state is not TrialState.WAITING for trial in self._all())

    def _taken(self, trial_id: int) -> bool:
        """Whether the trial became RUNNING by this call; another thread may be quicker."""
        try:
            return self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _complete(self, trial: FrozenTrial, new: NewTrial) -> None:
        """Past Optuna's check, as with a new trial: it refuses choices that were added to a study."""
        seen = self._storage._studies[self._study_id].param_distribution
        for name, value in new.params.items():
            domain = new.distributions.get(name)
            if domain is not None and name not in trial.params:
                seen[name] = domain
                self._storage.set_trial_param(trial._trial_id, name, domain.to_internal_repr(value), domain)
        self._write_attrs(trial._trial_id, new)

    def _write_attrs(self, trial_id: int, source: NewTrial | TrialResult) -> None:
        for key, value in source.user_attrs.items():
            self._storage.set_trial_user_attr(trial_id, key, value)
        for key, value in source.system_attrs.items():
            self._storage.set_trial_system_attr(trial_id, key, value)
