"""A study's trials as its space of now has them: each ended one is translated once, and of a large study those are kept
at hand from which TPE proposes.

TPE takes the best 25 trials at most for good ones; its cost grows with all others, whose density hardly changes after a
few hundred. So of a large study it gets the best (with several objectives
the trials of the first fronts), the newest, and the newest that did not fit, whichever node asks. Trials of a warm
start are the oldest of the study.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.front import minimized, pareto_ranks
from highnoon.shared.search.feasibility import has_missed
from highnoon.shared.search.history_snapshot import PENDING, for_sampler
from highnoon.shared.search.sampling_space import SamplingSpace

NEWEST = 700
_BEST, _MISSED = 100, 100


class KnownTrials:
    """Of one study in one process. `earlier` are trials of other studies, which come before all others."""

    def __init__(self, space: SamplingSpace, earlier: Sequence[FrozenTrial] = ()) -> None:
        self._space = space
        self._earlier = list(earlier)
        self.any_missed = any(map(has_missed, earlier))
        """Whether a trial that this space can have missed a constraint; known once the trials were asked for."""
        # None for those that the space cannot have.
        self._seen: dict[int, FrozenTrial | None] = {}
        # By age, those that TPE learns from: COMPLETE and PRUNED.
        self._ended: list[FrozenTrial] = []
        self._missed: list[FrozenTrial] = []
        self._best: list[tuple[float, _Age, FrozenTrial]] = []
        self._has_earlier = False

    def all(self, study: Study, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """The study's `trials`, translated."""
        translated = (self._translated(study, trial) for trial in trials)
        return [*self._earlier, *(trial for trial in translated if trial is not None)]

    def few(self, study: Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """All trials of a small study. Of a large one the best, the newest, the newest that did not fit, and
        the running ones."""
        if not self._has_earlier:
            self._has_earlier = True
            for trial in self._earlier:
                self._keep(study, trial)
        seen = self._seen
        new = [self._translated(study, trial) for trial in trials if trial._trial_id not in seen]
        running = [trial for trial in new if trial is not None and trial.state is TrialState.RUNNING]
        if len(self._ended) <= _BEST + NEWEST:
            return self.all(study, trials)
        chosen = {trial._trial_id: trial for trial in (*self._missed[-_MISSED:], *self._ended[-NEWEST:])}
        chosen |= {trial._trial_id: trial for _, _, trial in self._best}
        chosen |= {trial._trial_id: trial for trial in running}
        return sorted(chosen.values(), key=_age)

    def _translated(self, study: Study, trial: FrozenTrial) -> FrozenTrial | None:
        if trial._trial_id in self._seen:
            return self._seen[trial._trial_id]
        translated = self._space.translated(for_sampler(study, trial))
        if trial.state.is_finished():
            self._seen[trial._trial_id] = translated
            self.any_missed = self.any_missed or (translated is not None and has_missed(translated))
            if translated is not None and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._keep(study, translated)
        return translated

    def _keep(self, study: Study, trial: FrozenTrial) -> None:
        insort(self._ended, trial, key=_age)
        if trial.system_attrs and any(value > 0 for value in trial.constraints.values()):
            insort(self._missed, trial, key=_age)
        elif trial.state is TrialState.COMPLETE and len(study.directions) > 1:
            self._best.append((0.0, _age(trial), trial))
            if len(self._best) >= 2 * _BEST:
                ways = [direction.name.lower() for direction in study.directions]
                ranks = pareto_ranks([minimized(one.values, ways) for _, _, one in self._best], at_least=_BEST)
                kept = sorted(zip(ranks, self._best, strict=True), key=lambda pair: (pair[0], pair[1][1]))
                self._best = [one for _, one in kept[:_BEST]]
        elif trial.state is TrialState.COMPLETE and trial.values:
            sign = 1.0 if study.directions[0] is StudyDirection.MINIMIZE else -1.0
            insort(self._best, (sign * trial.values[0], _age(trial), trial))
            del self._best[_BEST:]


_Age = tuple[bool, int]


def _age(trial: FrozenTrial) -> _Age:
    """Trials of a warm start have ids below all others, and numbers of their own."""
    return trial._trial_id > PENDING, trial.number
