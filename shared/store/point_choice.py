"""The point of a study's next trial: a lost attempt's, an enqueued one, a grid's, or the sampler's.

Nothing is written, except that an enqueued trial which cannot be run is failed. Proposing is left to `shared.search`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from highnoon.shared.domain.errors import SpaceExhausted
from highnoon.shared.domain.extension import EXTENDS
from highnoon.shared.domain.lease import LostAttempt, Waiting
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.grid_points import Grid
from highnoon.shared.search.known_trials import KnownTrials
from highnoon.shared.search.presampling import Sampled, earlier_trials, sample, seed_of
from highnoon.shared.search.sampling_space import SamplingSpace
from highnoon.shared.store.optuna_trials import NewTrial, Trials, extension_in, find_trial, inherited_by_retry
from highnoon.shared.store.trial_results import failure

logger = logging.getLogger(__name__)


class PointChooser:
    """Chooses the points of one study; belongs to its OptunaStudy."""

    def __init__(
        self,
        spec: StudySpec,
        study: optuna.Study,
        trials: Trials,
        space: SamplingSpace,
        warm_start: Sequence[FrozenTrial] = (),
        *,
        seeds_itself: bool = False,
    ) -> None:
        self._seeds_itself = seeds_itself
        self._spec = spec
        self._study = study
        self._trials = trials
        self._space = space
        self._known = KnownTrials(space, earlier_trials(space, warm_start))
        self._grid = Grid.of(spec)

    def choose(self, *, ordinal: int, waiting: Waiting | None, before: LostAttempt | None = None) -> NewTrial:
        """As `OptunaStudy.choose` describes it."""
        if self._spec.defines_by_run:
            return self._undefined(waiting, before)
        if before is not None:
            return self._repeated(ordinal, before)
        if self._grid is not None and ordinal < len(self._grid):
            waiting = None
        while waiting is not None:
            try:
                return self._new(self._around(ordinal, waiting.fixed), waiting)
            except (ValueError, SpaceExhausted) as error:
                self._fail_waiting(waiting, error)
                waiting = self._trials.waiting()
        return self._new(self._grid.point(ordinal) if self._grid is not None else self._sampled(ordinal, {}))

    def _repeated(self, ordinal: int, before: LostAttempt) -> NewTrial:
        """The same point, marked as the retry of that trial, if it is there."""
        point = self._sampled(ordinal, self._space.as_repeated(before.params))
        new = self._new(point)
        return replace(new, **self._inherited(before, point.system_attrs))

    def _inherited(self, before: LostAttempt, own: Mapping[str, Any]) -> dict[str, Any]:
        """What a retry has of the trial before it, if that is there."""
        failed = find_trial(self._study, before.trial_number)
        if failed is None:
            return {"system_attrs": own}
        extends = {key: value for key, value in failed.user_attrs.items() if key == EXTENDS}
        return {
            "system_attrs": {**own, **inherited_by_retry(failed)},
            "user_attrs": extends,
            "extension": extension_in(failed),
        }

    def _undefined(self, waiting: Waiting | None, before: LostAttempt | None) -> NewTrial:
        if before is not None:
            return NewTrial(params=before.params, distributions={}, **self._inherited(before, {}))
        if waiting is not None:
            return NewTrial(
                params=dict(waiting.fixed),
                distributions={},
                waiting_trial_id=waiting.trial_id,
                extension=waiting.extension,
            )
        return NewTrial(params={}, distributions={})

    def _around(self, ordinal: int, wanted: Mapping[str, Any]) -> Sampled:
        """What a person enqueued, completed by the sampler. Raises ValueError, SpaceExhausted: it cannot be run."""
        fixed = self._space.as_stored(wanted)
        broken = self._space.broken_by(fixed)
        if broken:
            raise ValueError(f"the point does not keep {' and '.join(broken)}")
        return self._sampled(ordinal, fixed)

    def _sampled(self, ordinal: int, fixed: Params) -> Sampled:
        seed = None if self._seeds_itself else seed_of(self._spec.seed, ordinal)
        return sample(self._study, self._space, seed=seed, fixed=fixed, ordinal=ordinal, known=self._known)

    def _new(self, point: Sampled, waiting: Waiting | None = None) -> NewTrial:
        return NewTrial(
            params=point.params,
            distributions=self._space.domains,
            system_attrs=point.system_attrs,
            waiting_trial_id=None if waiting is None else waiting.trial_id,
            extension=None if waiting is None else waiting.extension,
        )

    def _fail_waiting(self, waiting: Waiting, reason: Exception) -> None:
        self._trials.finish(waiting.trial_id, failure(str(reason)))
        event(
            logger,
            "enqueued_unfit",
            level=logging.WARNING,
            study=self._spec.name,
            trial=waiting.number,
            reason=reason,
        )
