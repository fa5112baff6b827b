"""The sampler `auto`: what to try next by means that can be explained.

1. Start: a sequence that fills the space evenly, by the ticket's ordinal, so that nodes do not race for its points.
2. While trials are few: a Gaussian process. The point with the largest expected improvement is taken. Trials that are
   under way count as if they came out as expected, so that nodes at work at the same time try different things.
   Values worse than the median count by their rank: how bad a bad trial is says nothing of where the best one is.
3. Then TPE, whose cost does not grow with the cube of the trials.

No point is proposed again while there are others. What was pruned counts as bad, what did not fit or failed as the
worst, and `presampling` says how likely a point fits. Conditional spaces are left to TPE by groups.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from highnoon.shared.search.encoding import Cube, Points, keys_of
from highnoon.shared.search.gaussian_process import GaussianProcess, Shape, Vector, log_expected_improvement

_N_STARTUP = 8
_MOST_MODELLED = 200
"""Trials that have ended: beyond that TPE proposes."""
_MOST_PARAMETERS = 40
_MOST_FITTED = 120
"""Trials that decide how far each parameter reaches; all of them decide what is expected."""

_RANDOM_CANDIDATES = 512
_CENTRES, _NEIGHBOURS, _ROUNDS = 8, 40, 4

_LEAST_CHANCE, _DRAWS = 0.9, 12
"""Of TPE: it draws again what is known already or will hardly fit, so often at most."""

Worth = Callable[[Mapping[str, Any]], float]
"""Of a point, from 0 to 1."""

_NORMAL = NormalDist()


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
        self._tpe = TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=0)
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
        history = _history(cube, trials, minimizes=study.direction is StudyDirection.MINIMIZE, pending=trial)
        if len(history.values) < self._n_startup or not history.differs:
            return cube.decode(self._start(cube, history, trial.number if self.ordinal is None else self.ordinal))
        if len(history.values) > _MOST_MODELLED or len(cube.axes) > _MOST_PARAMETERS:
            return self._by_tpe(study, trial, cube, history)
        with _one_thread():
            return cube.decode(_most_promising(cube, history, self._shape(cube, history), self.worth, self._rng.rng))

    def _shape(self, cube: Cube, history: _History) -> Shape:
        """Fitted again when there are a tenth more trials: the oldest ones decide, so that every node gets the same."""
        count = 1
        while (more := count + max(1, count // 10)) <= len(history.values):
            count = more
        points, values = history.points[:count], history.values[:count]
        known = (points.tobytes(), values.tobytes())
        if self._fitted is None or self._fitted[0] != known:
            self._fitted = known, Shape.fitted(cube, points[-_MOST_FITTED:], _warped(values)[-_MOST_FITTED:])
        return self._fitted[1]

    def _start(self, cube: Cube, history: _History, place: int) -> Points:
        """A point of the additive recurrence whose irrational steps fill a cube most evenly (Roberts, 2018)."""
        width = len(cube.axes)
        base = 2.0
        for _ in range(40):
            base = (1 + base) ** (1 / (width + 1))
        steps = base ** -np.arange(1.0, width + 1)
        shares = (np.random.RandomState(self._seed).random_sample(width) + (place + 1) * steps) % 1.0
        point: Points = _unseen(cube, cube.spread(shares[None, :]), history.keys, self._rng.rng)[0]
        return point

    def _by_tpe(self, study: Study, trial: FrozenTrial, cube: Cube, history: _History) -> dict[str, Any]:
        space = {name: axis.domain for name, axis in zip(cube.names, cube.axes, strict=True)}
        best: tuple[float, dict[str, Any]] = (-math.inf, {})
        for _ in range(_DRAWS):
            drawn = self._tpe.sample_relative(study, trial, space)
            is_new = keys_of(cube.encode([drawn]))[0] not in history.keys
            fits = 1.0 if self.worth is None else min(self.worth(drawn), _LEAST_CHANCE) / _LEAST_CHANCE
            best = max(best, (is_new + fits, drawn), key=lambda one: one[0])
            if best[0] >= 2:
                return best[1]
        return cube.decode(_unseen(cube, cube.encode([best[1]]), history.keys, self._rng.rng)[0])


def _one_thread() -> AbstractContextManager[Any]:
    """For small matrices: threads of the linear algebra would wait for cores that are training, and take them away."""
    limit: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@dataclass(frozen=True, slots=True, kw_only=True)
class _History:
    """What is known: points with values to minimize, points under way, and which points are known at all."""

    points: Points
    values: Vector
    pending: Points
    keys: frozenset[bytes]

    @property
    def differs(self) -> bool:
        """Whether there is anything to learn from."""
        return len(self.values) > 1 and bool(np.ptp(self.values) > 0)


def _history(cube: Cube, trials: Sequence[FrozenTrial], *, minimizes: bool, pending: FrozenTrial) -> _History:
    usable = [one for one in trials if one.params.keys() >= set(cube.names) and one._trial_id != pending._trial_id]
    encoded = cube.encode(one.params for one in usable)
    keys = keys_of(encoded)
    sign = 1.0 if minimizes else -1.0
    values = np.array([_value(one, sign) for one in usable], dtype=float).reshape(-1)
    is_running = np.array([one.state is TrialState.RUNNING for one in usable], dtype=bool)
    is_known = np.isfinite(values)
    # The same parameters are tried again after an attempt that was lost: it is no evidence.
    elsewhere = {key for key, known, running in zip(keys, is_known, is_running, strict=True) if known or running}
    failed = [one.state is TrialState.FAIL and key not in elsewhere for one, key in zip(usable, keys, strict=True)]
    bad = ~is_known & (np.array(failed, dtype=bool) | np.isinf(values))
    bad |= np.array([any(limit > 0 for limit in one.constraints.values()) for one in usable], dtype=bool) & ~is_running
    good = is_known & ~bad
    pruned = good & np.array([one.state is TrialState.PRUNED for one in usable], dtype=bool)
    whole = values[good & ~pruned]
    if whole.size:
        values[pruned] = np.maximum(values[pruned], np.quantile(whole, 0.75))
        values[bad] = max(whole.max(), values[good].max())
    known = good | bad if whole.size else good
    return _History(points=encoded[known], values=values[known], pending=encoded[is_running], keys=frozenset(keys))


def _value(trial: FrozenTrial, sign: float) -> float:
    """To be minimized; NaN for a trial without one."""
    if trial.state is TrialState.COMPLETE and trial.values:
        return sign * float(trial.values[0])
    if trial.state is TrialState.PRUNED and trial.last_step is not None:
        return sign * float(trial.intermediate_values[trial.last_step])
    return math.nan


def _warped(values: Vector) -> Vector:
    """Mean 0 and deviation 1; what is worse than the median lies as far from it as its rank says."""
    median = float(np.median(values))
    spread = math.sqrt(float(np.mean((median - values[values <= median]) ** 2))) or 1.0
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    by_rank = np.array([_NORMAL.inv_cdf((rank + 0.5) / len(values)) for rank in ranks])
    warped = np.where(values <= median, values, median + spread * np.maximum(by_rank, 0.0))
    return np.asarray((warped - warped.mean()) / (warped.std() or 1.0))


def _most_promising(
    cube: Cube, history: _History, shape: Shape, worth: Worth | None, rng: np.random.RandomState
) -> Points:
    """The largest expected improvement among random points and, round by round, neighbours of the best ones."""
    values = _warped(history.values)
    model = GaussianProcess(cube, history.points, values, shape)
    model.believe(history.pending)
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
