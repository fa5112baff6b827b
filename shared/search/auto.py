"""The sampler `auto`: what to try next by means that can be explained.

1. Start: a sequence that fills the space evenly, by the ticket's ordinal, so that nodes do not race for its points.
2. While trials are few: a Gaussian process. The point with the largest expected improvement is taken. Trials that are
   under way count as if they came out as expected, so that nodes at work at the same time try different things.
   Values worse than the median count by their rank: how bad a bad trial is does not help to locate the best one.
3. Then TPE, whose cost does not grow with the cube of the trials.

Several objectives are left to TPE once the start is over.

No point is proposed again while there are others. What was pruned counts as bad, what did not fit or failed as the
worst, and `presampling` estimates how likely a point fits. Conditional spaces are left to TPE by groups.
"""

from __future__ import annotations

import copy
import heapq
import math
import secrets
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, cast

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from highnoon.shared.search.encoding import Cube, Points, keys_of
from highnoon.shared.search.evidence import Evidence, evidence_of, warped
from highnoon.shared.search.gaussian_process import GaussianProcess, Shape, Vector, log_expected_improvement
from highnoon.shared.search.tpe import CachingTPESampler

_N_STARTUP = 8
_MOST_MODELLED = 200
"""Trials that have ended: beyond that TPE proposes."""
_MOST_PARAMETERS = 40
_MOST_FITTED = 120
"""Trials that decide how far each parameter reaches; all of them decide what is expected."""

_RANDOM_CANDIDATES = 512
_CENTRES, _NEIGHBOURS, _ROUNDS = 8, 40, 4

_BEST_KEPT, _NEWEST_KEPT = 100, 700
"""Trials that TPE gets of a large study."""

_LEAST_CHANCE, _DRAWS = 0.9, 12
"""Of TPE: it draws again what is known already or will hardly fit, so often at most."""

Worth = Callable[[Mapping[str, Any]], float]
"""Of a point, from 0 to 1."""


class AutoSampler(BaseSampler):
    """For a space that is known beforehand; without one, for the parameters that every trial so far has had."""

    def __init__(
        self, space: Mapping[str, BaseDistribution], *, seed: int | None = None, n_startup_trials: int | None = None
    ) -> None:
        self._space = dict(space)
        self._n_startup = _N_STARTUP if n_startup_trials is None else n_startup_trials
        self._seen_space = IntersectionSearchSpace()
        self._seed = secrets.randbits(32) if seed is None else seed
        self._rng = LazyRandomState(seed)
        self._random_sampler = RandomSampler(seed=seed)
        self._tpe = CachingTPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=0)
        self._fitted: tuple[tuple[bytes, bytes], Shape] | None = None
        self.ordinal: int | None = None
        """The place in the sequence of the start; without one it is the trial's number."""
        self.worth: Worth | None = None
        """How likely a point fits, 0 for one that must not be run; improvement counts by that share."""

    def reseed_rng(self) -> None:
        """As BaseSampler describes it."""
        for sampler in (self._random_sampler, self._tpe):
            sampler.reseed_rng()
        self._rng.rng.seed()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All of the study's space where it is known."""
        space = self._space or self._seen_space.calculate(study)
        return {name: domain for name, domain in space.items() if not domain.single()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random: a parameter that not every trial has."""
        return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The whole point."""
        if not search_space:
            return {}
        cube = Cube(search_space)
        trials = study._get_trials(deepcopy=False, use_cache=True)
        ended = sum(one.state in (TrialState.COMPLETE, TrialState.PRUNED) for one in trials)
        if len(study.directions) > 1:
            if ended >= self._n_startup:
                return self._by_tpe(study, trial, cube, trials)
            known = keys_of(cube.encode(one.params for one in trials if one.params.keys() >= set(cube.names)))
            return cube.decode(self._start(cube, frozenset(known), self._place(trial)))
        minimizes = study.direction is StudyDirection.MINIMIZE
        if ended > _MOST_MODELLED or (ended >= self._n_startup and len(cube.axes) > _MOST_PARAMETERS):
            return self._by_tpe(_thinned(study, trials, minimizes=minimizes), trial, cube, trials)
        history = evidence_of(cube, trials, minimizes=minimizes, pending=trial)
        if len(history.values) < self._n_startup or not history.differs:
            return cube.decode(self._start(cube, history.keys, self._place(trial)))
        with _one_thread():
            return cube.decode(_most_promising(cube, history, self._shape(cube, history), self.worth, self._rng.rng))

    def _place(self, trial: FrozenTrial) -> int:
        return trial.number if self.ordinal is None else self.ordinal

    def _shape(self, cube: Cube, history: Evidence) -> Shape:
        """Fitted again when there are a tenth more trials: the oldest ones decide, so that every node gets the same."""
        count = 1
        while (more := count + max(1, count // 10)) <= len(history.values):
            count = more
        points, values = history.points[:count], history.values[:count]
        known = (points.tobytes(), values.tobytes())
        if self._fitted is None or self._fitted[0] != known:
            self._fitted = known, Shape.fitted(cube, points[-_MOST_FITTED:], warped(values)[-_MOST_FITTED:])
        return self._fitted[1]

    def _start(self, cube: Cube, known: frozenset[bytes], place: int) -> Points:
        """A point of the additive recurrence whose irrational steps fill a cube most evenly (Roberts, 2018)."""
        width = len(cube.axes)
        base = 2.0
        for _ in range(40):
            base = (1 + base) ** (1 / (width + 1))
        steps = base ** -np.arange(1.0, width + 1)
        shares = (np.random.RandomState(self._seed).random_sample(width) + (place + 1) * steps) % 1.0
        point: Points = _unseen(cube, cube.spread(shares[None, :]), known, self._rng.rng)[0]
        return point

    def _by_tpe(self, study: Study, trial: FrozenTrial, cube: Cube, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        space = {name: axis.domain for name, axis in zip(cube.names, cube.axes, strict=True)}
        # In a continuous space nothing comes twice.
        seen = set() if cube.size is None else {tuple(map(one.params.get, cube.names)) for one in trials}
        best: tuple[float, dict[str, Any]] = (-math.inf, {})
        for _ in range(_DRAWS):
            drawn = self._tpe.sample_relative(study, trial, space)
            is_new = tuple(map(drawn.get, cube.names)) not in seen
            fits = 1.0 if self.worth is None else min(self.worth(drawn), _LEAST_CHANCE) / _LEAST_CHANCE
            best = max(best, (is_new + fits, drawn), key=lambda one: one[0])
            if best[0] >= 2:
                return best[1]
        known = keys_of(cube.encode(one.params for one in trials if one.params.keys() >= space.keys()))
        return cube.decode(_unseen(cube, cube.encode([best[1]]), frozenset(known), self._rng.rng)[0])


class _Thinned:
    """A study's storage with a part of its trials."""

    def __init__(self, storage: BaseStorage, trials: Sequence[FrozenTrial]) -> None:
        self._storage = storage
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Never copied: TPE changes none."""
        return [one for one in self._trials if states is None or one.state in states]


def _thinned(study: Study, trials: Sequence[FrozenTrial], *, minimizes: bool) -> Study:
    """The best and the newest trials. TPE takes 25 at most for good ones, and its cost grows with the others."""
    if len(trials) <= _BEST_KEPT + _NEWEST_KEPT:
        return study
    sign = 1.0 if minimizes else -1.0
    older, newest = trials[:-_NEWEST_KEPT], trials[-_NEWEST_KEPT:]
    running = [one for one in older if one.state is TrialState.RUNNING]
    complete = [one for one in older if one.state is TrialState.COMPLETE]
    best = heapq.nsmallest(_BEST_KEPT, complete, key=lambda one: sign * one.values[0])
    view = copy.copy(study)
    view._storage = cast(BaseStorage, _Thinned(study._storage, [*running, *best, *newest]))
    return view


def _one_thread() -> AbstractContextManager[Any]:
    """For small matrices: threads of the linear algebra would wait for cores that are training, and take them away."""
    limit: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _most_promising(
    cube: Cube, history: Evidence, shape: Shape, worth: Worth | None, rng: np.random.RandomState
) -> Points:
    """The largest expected improvement among random points and, round by round, neighbours of the best ones."""
    values = warped(history.values)
    model = GaussianProcess(cube, history.points, values, shape)
    model.add_pending(history.pending)
    best = float(model.predict(np.vstack([history.points, history.pending]))[0].min())
    score = _scorer(cube, model, best, worth)
    order = np.argsort(values, kind="stable")
    centres = history.points[order[:_CENTRES]]
    found = cube.spread(rng.random_sample((_RANDOM_CANDIDATES, len(cube.axes))))
    scores = score(found)
    for _ in range(_ROUNDS):
        near = cube.moved(np.repeat(centres, _NEIGHBOURS, axis=0), rng)
        found, scores = np.vstack([found, near]), np.concatenate([scores, score(near)])
        kept = np.argsort(-scores, kind="stable")[: _CENTRES * 8]
        found, scores = found[kept], scores[kept]
        centres = found[:_CENTRES]
    new = [row for row, key in enumerate(keys_of(found)) if key not in history.keys]
    point: Points = found[new[0]] if new else _unseen(cube, found[:1], history.keys, rng)[0]
    return point


def _scorer(cube: Cube, model: GaussianProcess, best: float, worth: Worth | None) -> Callable[[Points], Vector]:
    def score(points: Points) -> Vector:
        improvement = log_expected_improvement(*model.predict(points), best)
        if worth is None:
            return improvement
        return improvement + np.log([max(worth(cube.decode(point)), 1e-300) for point in points])

    return score


def _unseen(cube: Cube, point: Points, keys: frozenset[bytes], rng: np.random.RandomState) -> Points:
    """The point, or one near it that is not known yet; the point itself where all are known."""
    if keys_of(point)[0] not in keys or (cube.size is not None and len(keys) >= cube.size):
        return point
    near = point
    for _ in range(64):
        near = cube.moved(np.repeat(near[:1], 16, axis=0), rng)
        for row, key in zip(near, keys_of(near), strict=True):
            if key not in keys:
                return np.atleast_2d(row)
    return point
