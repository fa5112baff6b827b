"""Whether a running trial of a study is to be pruned: the study's pruner, asked about the study as it is now."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner, NopPruner

from highnoon.shared.domain.study import StudySpec
from highnoon.shared.search.history_snapshot import snapshot_of
from highnoon.shared.search.pruning import PrunerView
from highnoon.shared.search.samplers import build_pruner, depends_on_steps
from highnoon.shared.store.optuna_trials import Trials

STEPS = "highnoon:steps"
"""Study attribute: how many steps a whole trial has, for pruners whose rungs follow from it. Written once."""


class PruningDecisions:
    """Decides for the trials of one study; belongs to its OptunaStudy."""

    def __init__(self, spec: StudySpec, study: optuna.Study, trials: Trials) -> None:
        self._spec = spec
        self._study = study
        self._trials = trials
        self._knows_steps = not depends_on_steps(spec.pruner)

    @property
    def are_possible(self) -> bool:
        """Whether what a trial reports may end it."""
        return self._spec.ends_trials_early

    def view(self, trial_id: int) -> PrunerView:
        """The study as it is now, for decisions on this running trial, which need no database."""
        now = self._snapshot()
        return PrunerView(now, now.get_trials(deepcopy=False), trial_id)

    def should_prune(self, trial_id: int) -> bool:
        """Whether the study's pruner would end this trial now, by the reports it has; False once it has ended."""
        if not self.are_possible:
            return False
        now = self._snapshot()
        if isinstance(now.pruner, NopPruner):
            return False
        latest_first = reversed(now.get_trials(deepcopy=False))
        trial = next((trial for trial in latest_first if trial._trial_id == trial_id), None)
        if trial is None or trial.state.is_finished():
            return False
        # Optuna's percentile pruners answer with NumPy's bool, which is no bool to JSON.
        return bool(now.pruner.prune(now, trial))

    def _snapshot(self) -> optuna.Study:
        now = snapshot_of(self._study)
        if objectives := list(self._spec.objectives or ()):
            # Reports are of this one, and a pruner reads nothing else.
            now._directions = [now.directions[objectives.index(str(self._spec.prune_on))]]
        if not self._knows_steps:
            now.pruner = self._study.pruner = self._with_steps(now)
        return now

    def _with_steps(self, now: optuna.Study) -> BasePruner:
        """The study's pruner, once one trial has shown how many steps a whole one has: the same for every node."""
        ended = now.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        steps = [trial.last_step + 1 for trial in ended if trial.last_step is not None]
        if not steps:
            return self._study.pruner
        self._knows_steps = True
        return build_pruner(self._spec.pruner, self._trials.keep_study_attr(STEPS, max(1, *steps))) or NopPruner()
