"""The point of a study's next trial: a lost attempt's, an enqueued one, a grid's, or the sampler's.

Nothing is written, except that an enqueued trial which cannot be run is failed. Proposing is left to `shared.search`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.errors import InvalidInput, SpaceExhausted
from highnoon.shared.domain.extension import EXTENSION, Extension
from highnoon.shared.domain.lease import LostAttempt, Waiting
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.grid_points import Grid
from highnoon.shared.search.known_trials import KnownTrials
from highnoon.shared.search.population import KEPT_BY_RETRY, Population
from highnoon.shared.search.presampling import Sampled, earlier_trials, sample, seed_of
from highnoon.shared.search.sampling_space import SamplingSpace
from highnoon.shared.store.enqueued_points import plain_point
from highnoon.shared.store.optuna_trials import NewTrial, Trials, extension_in, find_trial, inherited_by_retry
from highnoon.shared.store.trial_results import failure

logger = logging.getLogger(__name__)

LastCheckpoints = Callable[[], Mapping[int, Checkpoint | None]] | None
"""Gives the last checkpoints that trials may go on from, by the number of the trial that has left it; None instead of
one in the store is one that is here."""


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
        self._population = Population(spec, space) if spec.sampler.goes_on_from_checkpoints else None
        self._has_warned = False

    def choose(
        self, *, ordinal: int, waiting: Waiting | None, before: LostAttempt | None = None, kept: LastCheckpoints = None
    ) -> NewTrial:
        """As `OptunaStudy.choose` describes it."""
        if self._spec.defines_by_run:
            return self._undefined(waiting, before)
        if before is not None:
            return self._repeated(ordinal, before)
        if self._grid is not None and ordinal < len(self._grid):
            waiting = None
        while waiting is not None:
            try:
                new = self._new(self._around(ordinal, waiting.fixed), waiting)
                if self._population is None or waiting.extension is not None:
                    return new
                return self._joined(self._population, ordinal, new)
            except (ValueError, SpaceExhausted) as error:
                self._fail_waiting(waiting, error)
                waiting = self._trials.waiting()
        if self._population is not None:
            return self._of_population(self._population, ordinal, kept() if kept is not None else {})
        return self._new(self._grid.point(ordinal) if self._grid is not None else self._sampled(ordinal, {}))

    def _of_population(self, population: Population, ordinal: int, kept: Mapping[int, Checkpoint | None]) -> NewTrial:
        """What a member trains next; of a checkpoint in a store, where that is."""
        rng = random.Random(seed_of(self._spec.seed, ordinal))  # noqa: S311 - no secret
        segment = population.next(ordinal, self._study.get_trials(deepcopy=False), kept, rng)
        if segment.is_restart_from_nothing and not self._has_warned:
            self._has_warned = True
            reason = "no trial has left anything in hn.checkpoint_dir(): this one begins at its beginning"
            event(logger, "no_checkpoints", level=logging.WARNING, study=self._spec.name, reason=reason)
        new = replace(self._new(self._sampled(ordinal, segment.params)), user_attrs=segment.attrs)
        checkpoint = None if segment.of is None else kept[segment.of]
        if segment.of is None or checkpoint is None:
            return new
        extension = Extension(of=segment.of, checkpoint=checkpoint)
        attrs = {**new.system_attrs, EXTENSION: extension.to_json()}
        return replace(new, system_attrs=attrs, extension=extension)

    def _joined(self, population: Population, ordinal: int, new: NewTrial) -> NewTrial:
        """What a person enqueued, as a member of its own."""
        segment = population.new_member(ordinal, self._study.get_trials(deepcopy=False))
        return replace(new, user_attrs=segment.attrs)

    def _repeated(self, ordinal: int, before: LostAttempt) -> NewTrial:
        """The same point, marked as the retry of that trial, if it is there."""
        point = self._sampled_around(ordinal, self._space.as_repeated(before.params))
        new = self._new(point)
        return replace(new, **self._inherited(before, point.system_attrs))

    def _inherited(self, before: LostAttempt, own: Mapping[str, Any]) -> dict[str, Any]:
        """What a retry has of the trial before it, if that is there."""
        failed = find_trial(self._study, before.trial_number)
        if failed is None:
            return {"system_attrs": own}
        goes_on = {key: value for key, value in failed.user_attrs.items() if key in KEPT_BY_RETRY}
        return {
            "system_attrs": {**own, **inherited_by_retry(failed)},
            "user_attrs": goes_on,
            "extension": extension_in(failed),
        }

    def _undefined(self, waiting: Waiting | None, before: LostAttempt | None) -> NewTrial:
        if before is not None:
            return NewTrial(params=before.params, distributions={}, **self._inherited(before, {}))
        while waiting is not None:
            try:
                fixed = plain_point(waiting.fixed)
            except InvalidInput as error:
                self._fail_waiting(waiting, error.problems[0])
                waiting = self._trials.waiting()
            else:
                return NewTrial(
                    params=fixed,
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

    def _sampled_around(self, ordinal: int, known: Params) -> Sampled:
        """What an earlier trial had, completed; also where that breaks a constraint which came later."""
        try:
            return self._sampled(ordinal, known)
        except SpaceExhausted:
            if not known:
                raise
            return self._sampled(ordinal, known, self._space.without_constraints())

    def _sampled(self, ordinal: int, fixed: Params, space: SamplingSpace | None = None) -> Sampled:
        seed = None if self._seeds_itself else seed_of(self._spec.seed, ordinal)
        return sample(self._study, space or self._space, seed=seed, fixed=fixed, ordinal=ordinal, known=self._known)

    def _new(self, point: Sampled, waiting: Waiting | None = None) -> NewTrial:
        return NewTrial(
            params=point.params,
            distributions=self._space.domains,
            system_attrs=point.system_attrs,
            waiting_trial_id=None if waiting is None else waiting.trial_id,
            extension=None if waiting is None else waiting.extension,
        )

    def _fail_waiting(self, waiting: Waiting, reason: object) -> None:
        self._trials.finish(waiting.trial_id, failure(str(reason)))
        event(
            logger,
            "enqueued_unfit",
            level=logging.WARNING,
            study=self._spec.name,
            trial=waiting.number,
            reason=reason,
        )
