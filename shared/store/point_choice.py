"""The point of a study's next trial: a lost attempt's, an enqueued one, a grid's, or the sampler's.

Nothing is written, except that an enqueued trial which cannot be run is failed. Proposing is left to `shared.search`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.errors import InvalidInput, SpaceExhausted
from highnoon.shared.domain.extension import EXTENSION, Extension
from highnoon.shared.domain.lease import EnqueuedTrial, LostAttempt
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.grid_points import Grid
from highnoon.shared.search.known_trials import KnownTrials
from highnoon.shared.search.population import KEPT_BY_RETRY, Population, Segment
from highnoon.shared.search.presampling import Sampled, earlier_trials, sample, seed_of
from highnoon.shared.search.sampling_space import SamplingSpace
from highnoon.shared.store.enqueued_points import plain_point
from highnoon.shared.store.optuna_trials import NewTrial, Trials, extension_in, find_trial, inherited_by_retry
from highnoon.shared.store.trial_results import failure

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastCheckpoints:
    """What trials may go on from, by the number of the trial that has left it; None is one that is on this machine.

    `of_call` are all trials of this call in process, which are its population; None on a cluster.
    """

    kept: Mapping[int, Checkpoint | None]
    of_call: Collection[int] | None = None


ReadCheckpoints = Callable[[], LastCheckpoints] | None


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
        self,
        *,
        ordinal: int,
        waiting: EnqueuedTrial | None,
        before: LostAttempt | None = None,
        kept: ReadCheckpoints = None,
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
                return replace(new, user_attrs=self._population.new_member(ordinal).attrs)
            except (ValueError, SpaceExhausted) as error:
                self._fail_waiting(waiting, error)
                waiting = self._trials.waiting()
        if self._population is not None:
            return self._of_population(self._population, ordinal, kept or (lambda: LastCheckpoints(kept={})))
        return self._new(self._grid.point(ordinal) if self._grid is not None else self._sampled(ordinal, {}))

    def _of_population(
        self, population: Population, ordinal: int, read_checkpoints: Callable[[], LastCheckpoints]
    ) -> NewTrial:
        """What a member trains next; of a checkpoint in a store, where that is."""
        rng = random.Random(seed_of(self._spec.seed, ordinal))  # noqa: S311 - no secret
        trials = self._study.get_trials(deepcopy=False)
        # After the trials: one that ends in between would seem to have left no checkpoint.
        checkpoints = read_checkpoints()
        kept, of_call = checkpoints.kept, checkpoints.of_call
        members = trials if of_call is None else [trial for trial in trials if trial.number in of_call]
        segment = population.next(ordinal, members, kept, rng, are_retried=of_call is None)
        if segment.is_restart_from_nothing and not self._has_warned:
            self._has_warned = True
            reason = "there is no checkpoint to go on from (hn.checkpoint_dir()): a trial begins at its beginning"
            event(logger, "no_checkpoints", level=logging.WARNING, study=self._spec.name, reason=reason)
        new = replace(self._new(self._near_parent(ordinal, segment, trials)), user_attrs=segment.attrs)
        checkpoint = None if segment.of is None else kept[segment.of]
        if segment.of is None or checkpoint is None:
            return new
        extension = Extension(of=segment.of, checkpoint=checkpoint)
        attrs = {**new.system_attrs, EXTENSION: extension.to_json()}
        return replace(new, system_attrs=attrs, extension=extension)

    def _near_parent(self, ordinal: int, segment: Segment, trials: Sequence[FrozenTrial]) -> Sampled:
        """The point of a segment, completed; its parent's where the changed one cannot keep the constraints."""
        try:
            return self._sampled(ordinal, segment.params)
        except SpaceExhausted:
            parent = next((trial for trial in trials if trial.number == segment.of), None)
            if parent is None:
                raise
            return self._sampled_around(ordinal, self._space.as_repeated(parent.params))

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

    def _undefined(self, waiting: EnqueuedTrial | None, before: LostAttempt | None) -> NewTrial:
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

    def _new(self, point: Sampled, waiting: EnqueuedTrial | None = None) -> NewTrial:
        return NewTrial(
            params=point.params,
            distributions=self._space.domains,
            system_attrs=point.system_attrs,
            waiting_trial_id=None if waiting is None else waiting.trial_id,
            extension=None if waiting is None else waiting.extension,
        )

    def _fail_waiting(self, waiting: EnqueuedTrial, reason: object) -> None:
        self._trials.finish(waiting.trial_id, failure(str(reason)))
        event(
            logger,
            "enqueued_unfit",
            level=logging.WARNING,
            study=self._spec.name,
            trial=waiting.number,
            reason=reason,
        )
