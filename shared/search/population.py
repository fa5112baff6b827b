"""Population-based training: which member of the population goes on next, from whose checkpoint, at which point.

After Jaderberg et al., Population Based Training of Neural Networks (2017, https://arxiv.org/abs/1711.09846), with the
numbers that Ray Tune has by default. A trial is one member's training over `perturbation_interval` steps; the next of
that member begins with the checkpoint that it has left. A member that is among the worst of its generation begins with
the checkpoint of one of the best instead, at a point near its point. Trials of a generation end one after the other,
and are compared with those that have ended by then: no trial waits for the last one.

What a trial is of its population stands in its attributes, so that any node can choose the next one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.extension import EXTENDS
from highnoon.shared.domain.param import Float
from highnoon.shared.domain.states import CAUSE, ENDING, Cause, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.search.sampling_space import SamplingSpace

MEMBER, GENERATION = "highnoon:member", "highnoon:generation"
"""Attributes of a trial of a population. A member has the number of the ticket with which it began; generations count
from 0."""

KEPT_BY_RETRY = (EXTENDS, MEMBER, GENERATION)

_FACTORS = (0.8, 1.2)
_TRIES = 100
"""To find a changed point that keeps the constraints; then the point stays as it is."""
_INFRASTRUCTURE = (Ending.LOST, Ending.KILLED, Ending.RELEASED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What a member trains next. `of`: the trial whose checkpoint it begins with; None for a training of its own.

    What `params` leaves open is drawn at random.
    """

    member: int
    generation: int
    of: int | None = None
    params: Params
    is_restart_from_nothing: bool = False
    """Whether a training has come to the end of its segment, and there is no checkpoint to go on from."""

    @property
    def attrs(self) -> dict[str, int]:
        """Of its trial."""
        return {MEMBER: self.member, GENERATION: self.generation, **({} if self.of is None else {EXTENDS: self.of})}


class SegmentPruner(BasePruner):
    """Ends a trial of generation g with its first report at step (g + 1) * `perturbation_interval` or later."""

    def __init__(self, perturbation_interval: int) -> None:
        self._interval = perturbation_interval

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the segment is over."""
        last = self.last_step(trial)
        return last is not None and trial.last_step is not None and trial.last_step >= last

    def last_step(self, trial: FrozenTrial) -> int | None:
        """The step with which the segment ends; None for a trial outside of the population, which has no segments."""
        return (_generation(trial) + 1) * self._interval if _segments([trial]) else None


class Population:
    """The decisions for one study, from its trials and from the numbers of those whose checkpoint is `kept`."""

    def __init__(self, spec: StudySpec, space: SamplingSpace) -> None:
        options = spec.sampler.options
        self._size: int = options["population"]
        self._quantile: float = options["quantile_fraction"]
        self._resample: float = options["resample_probability"]
        floats = [name for name, param in spec.search_space.items() if isinstance(param, Float)]
        self._mutated: Collection[str] = options.get("mutate", floats)
        self._sign = -1.0 if spec.direction == "maximize" else 1.0
        self._max_attempts, self._retry_errors = spec.max_attempts, spec.retry_errors
        self._space = space

    def next(
        self,
        ordinal: int,
        trials: Iterable[FrozenTrial],
        kept: Collection[int],
        rng: random.Random,
        *,
        are_retried: bool = True,
    ) -> Segment:
        """The segment of a ticket's trial: of a new member until all have begun, then of one that waits to go on.

        Two nodes that choose at the same moment do not know of one another; by their ordinals they mostly differ.
        `are_retried`: whether a lost trial is tried again, as on a cluster.
        """
        segments = _segments(trials)
        if self._has_place(ordinal, segments, by_ordinal=are_retried):
            return self.new_member(ordinal)
        ended = [trial for trial in _newest(segments).values() if trial.state.is_finished() and not _is_done(trial)]
        retried = [trial for trial in ended if are_retried and self._is_to_be_retried(trial)]
        ready = _of_lowest_generation([trial for trial in ended if trial not in retried] or retried)
        if ready:
            return self._continued(ready[ordinal % len(ready)], segments, kept, rng)
        return self._restarted(ordinal, max(map(_generation, segments)), segments, kept, rng)

    @staticmethod
    def new_member(ordinal: int) -> Segment:
        """One more, at a point of its own. Each has the number of its ticket, which no other one has."""
        return Segment(member=ordinal, generation=0, params={})

    def needed(self, trials: Iterable[FrozenTrial]) -> set[int]:
        """The numbers of trials from whose checkpoints another one may go on: each member's last trial, and all trials
        of the last two generations."""
        segments = _segments(trials)
        oldest = max(map(_generation, segments), default=0) - 1
        last = {trial.number for trial in _newest(segments).values()}
        return {
            trial.number
            for trial in segments
            if _can_go_on(trial) and (_generation(trial) >= oldest or trial.number in last)
        }

    def _has_place(self, ordinal: int, segments: Sequence[FrozenTrial], *, by_ordinal: bool) -> bool:
        """Whether a ticket is one of the first. Tickets may begin in any order, trials of one process in theirs."""
        members = {_member(trial) for trial in segments}
        if not by_ordinal:
            return len(members) < self._size
        first = min(members, default=ordinal)
        # Where no member has a number below, the study had another sampler before.
        return ordinal < (0 if first < self._size else first) + self._size

    def _is_to_be_retried(self, trial: FrozenTrial) -> bool:
        """Whether its ticket has attempts left: as far as the trial shows it."""
        ending, tries = trial.user_attrs.get(ENDING), 1 + len(trial.system_attrs.get("retry_history", ()))
        if ending in _INFRASTRUCTURE:
            return tries < self._max_attempts
        return ending == Ending.FAILED and tries <= self._retry_errors

    def _continued(
        self, trial: FrozenTrial, segments: Sequence[FrozenTrial], kept: Collection[int], rng: random.Random
    ) -> Segment:
        """The member goes on by itself, or in the place of one of the best where it is one of the worst, or failed."""
        member, generation = _member(trial), _generation(trial)
        ranked = self._ranked(segments, generation)
        worst = [one.number for one in ranked[len(ranked) - self._cut(len(ranked)) :]]
        if not _can_go_on(trial) or trial.number in worst or trial.number not in kept:
            others = [one for one in segments if one is not trial]
            return self._restarted(member, generation, others, kept, rng)
        params = self._space.as_repeated(trial.params)
        return Segment(member=member, generation=generation + 1, of=trial.number, params=params)

    def _restarted(
        self, member: int, generation: int, segments: Sequence[FrozenTrial], kept: Collection[int], rng: random.Random
    ) -> Segment:
        """From the checkpoint of one of the best of this generation; where none is kept, of one before or after it."""
        newest = max(map(_generation, segments), default=0)
        for one in (*range(generation, -1, -1), *range(generation + 1, newest + 1)):
            ranked = [trial for trial in self._ranked(segments, one) if trial.number in kept]
            if ranked:
                parent = rng.choice(ranked[: max(self._cut(len(ranked)), 1)])
                params = self._changed(self._space.as_repeated(parent.params), rng)
                return Segment(member=member, generation=one + 1, of=parent.number, params=params)
        has_ended = any(map(_can_go_on, segments))
        return Segment(member=member, generation=0, params={}, is_restart_from_nothing=has_ended)

    def _ranked(self, segments: Sequence[FrozenTrial], generation: int) -> list[FrozenTrial]:
        """Those that have ended, the best one first; infeasible ones are the worst."""
        over = [trial for trial in segments if _generation(trial) == generation and _can_go_on(trial)]
        return sorted(over, key=lambda trial: (_misses(trial), self._sign * (trial.value or 0.0), trial.number))

    def _cut(self, count: int) -> int:
        """How many of `count` are the best, and how many the worst."""
        return min(math.ceil(count * self._quantile), count // 2)

    def _changed(self, params: Params, rng: random.Random) -> Params:
        """A point near this one; what is to be drawn from its whole domain is left out."""
        for _ in range(_TRIES):
            changed = dict(params)
            for name in self._mutated:
                if name in changed:
                    value = changed.pop(name)
                    if rng.random() >= self._resample:
                        changed[name] = _moved(self._space.domains[name], value, rng)
            if not self._space.broken_by(changed):
                return changed
        return params


def _moved(domain: Any, value: Any, rng: random.Random) -> Any:
    """The choice before or after it; a number by a fifth smaller or larger, or by a step where that is more. At a bound
    it may stay."""
    if isinstance(domain, CategoricalDistribution):
        index = int(domain.to_internal_repr(value)) + rng.choice((-1, 1))
        return domain.choices[min(max(index, 0), len(domain.choices) - 1)]
    factor = rng.choice(_FACTORS)
    if domain.step is None:
        return float(min(max(value * factor, domain.low), domain.high))
    now, then = (round((number - domain.low) / domain.step) for number in (value, value * factor))
    steps = max(then, now + 1) if factor > 1.0 else min(then, now - 1)
    number = min(max(domain.low + steps * domain.step, domain.low), domain.high)
    return int(number) if isinstance(domain, IntDistribution) else float(number)


def _segments(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    return [
        trial
        for trial in trials
        if isinstance(trial.user_attrs.get(MEMBER), int) and isinstance(trial.user_attrs.get(GENERATION), int)
    ]


def _newest(segments: Iterable[FrozenTrial]) -> Mapping[int, FrozenTrial]:
    """Of each member what was decided last: that may be a step back. A retry repeats what was decided long before."""
    newest: dict[int, FrozenTrial] = {}
    for trial in sorted(segments, key=lambda trial: (*trial.system_attrs.get("retry_history", ())[:1], trial.number)):
        newest[_member(trial)] = trial
    return newest


def _of_lowest_generation(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    found = list(trials)
    lowest = min(map(_generation, found), default=0)
    return sorted((trial for trial in found if _generation(trial) == lowest), key=_member)


def _can_go_on(trial: FrozenTrial) -> bool:
    """Whether a training can go on from here: not where it did not fit, failed, or came to its own end."""
    return trial.state is TrialState.COMPLETE and trial.user_attrs.get(CAUSE) == Cause.SEGMENT_END


def _misses(trial: FrozenTrial) -> bool:
    """Whether it breaks a constraint."""
    return any(value > 0 for value in trial.constraints.values())


def _is_done(trial: FrozenTrial) -> bool:
    """Whether its member was trained to the end."""
    return trial.state is TrialState.COMPLETE and not _can_go_on(trial)


def _member(trial: FrozenTrial) -> int:
    return int(trial.user_attrs[MEMBER])


def _generation(trial: FrozenTrial) -> int:
    return int(trial.user_attrs[GENERATION])
