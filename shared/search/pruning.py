"""One decision of a pruner after the other for a running trial, without a database: from the trial's own reports, and
from the study's other trials as they were read a moment ago.

A supervisor's monitor answers with it; its I/O thread reads a new view now and then. What is private in Optuna 5.0.x
and used here (`Study._storage`, `FrozenTrial._trial_id`) is checked by tests/contract/test_samplers.py.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Mapping
from functools import cached_property
from typing import Any, cast

from optuna.pruners import NopPruner
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.safe_reports import SafeReports
from highnoon.shared.domain.trial import Report
from highnoon.shared.search.history_snapshot import new_trial
from highnoon.shared.search.plugged import PluggedPruner
from highnoon.shared.search.pruning_ahead import safe_reports

_MOST_VALUES = 20_000
"""Of a trial that reports more often every second value is forgotten, the newest never: a decision reads them all."""


class PrunedTrial:
    """A running trial as a pruner gets it. The first report of a step stays, as in Optuna."""

    def __init__(self, trial_id: int, number: int) -> None:
        self.frozen = new_trial(trial_id, number)

    def report(self, report: Report) -> None:
        """Adds one value."""
        values = self.frozen.intermediate_values
        values.setdefault(report.step, report.value)
        if len(values) > _MOST_VALUES:
            kept = [*values.items()]
            self.frozen.intermediate_values = dict(kept[(len(kept) - 1) % 2 :: 2])

    def copy(self) -> PrunedTrial:
        """As it is now, for a decision in another thread."""
        one = PrunedTrial(self.frozen._trial_id, self.frozen.number)
        one.frozen.intermediate_values = dict(self.frozen.intermediate_values)
        one.frozen.system_attrs = dict(self.frozen.system_attrs)
        return one

    def note(self, attrs: Mapping[str, Any]) -> None:
        """Keeps what a pruner noted with a copy."""
        self.frozen.system_attrs.update(attrs)

    @property
    def attrs(self) -> dict[str, Any]:
        """What pruners noted: the rungs that it has reached, which other trials are compared with."""
        return dict(self.frozen.system_attrs)


class PrunerView:
    """A study as its pruner needs it, at one moment. `trials` may contain the trial that is decided on."""

    def __init__(self, study: Study, trials: Iterable[FrozenTrial], trial_id: int) -> None:
        self._trials, self._own_attrs = [], {}
        for trial in trials:
            if trial._trial_id == trial_id:
                self._own_attrs = trial.user_attrs
            else:
                self._trials.append(trial)
        self._of_states: dict[tuple[TrialState, ...], list[FrozenTrial]] = {}
        self._study_id = study._study_id
        self._directions = list(study.directions)
        self._decided: FrozenTrial | None = None
        self._study = copy.copy(study)
        self._study._storage = cast(BaseStorage, self)

    @property
    def waits(self) -> bool:
        """Whether a decision waits for another process, the one of the study's own pruner."""
        return isinstance(self._study.pruner, PluggedPruner)

    def prunes(self, trial: PrunedTrial) -> bool:
        """Whether the study's pruner would end the trial now."""
        if isinstance(self._study.pruner, NopPruner):
            return False
        self._decided = trial.frozen
        trial.frozen.user_attrs = self._own_attrs
        # Optuna's percentile pruners answer with NumPy's bool, which is no bool to JSON.
        return bool(self._study.pruner.prune(self._study, trial.frozen))

    def safe_reports(self, trial: PrunedTrial, n_steps: int, *, for_s: float) -> SafeReports | None:
        """Which of its next reports need no decision, at most `n_steps` of them by their value; None for none that was
        not known before."""
        complete = self.get_all_trials(self._study_id, states=(TrialState.COMPLETE,))
        trial.frozen.user_attrs = self._own_attrs
        return safe_reports(
            self._study.pruner, self._directions[0], complete, trial.frozen, n_steps=n_steps, for_s=for_s
        )

    # What pruners ask of a storage.

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All others. Not copied: pruners change none."""
        if states is None:
            return self._trials
        key = tuple(state for state in TrialState if state in states)
        if key not in self._of_states:
            self._of_states[key] = [trial for trial in self._trials if trial.state in key]
        return self._of_states[key]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Raises ValueError while there is none."""
        return self._best

    def get_study_id_from_name(self, study_name: str) -> int:
        """Hyperband asks for it at every decision."""
        return self._study_id

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """The same."""
        return self._directions

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Noted with the trial; who uses it writes it to the database."""
        if self._decided is not None:
            self._decided.system_attrs[key] = value

    @cached_property
    def _best(self) -> FrozenTrial:
        complete = self.get_all_trials(self._study_id, states=(TrialState.COMPLETE,))
        if not complete:
            raise ValueError("no trial is COMPLETE")
        sign = -1.0 if self._directions[0] is StudyDirection.MAXIMIZE else 1.0
        return min(complete, key=lambda trial: sign * cast(float, trial.value))
