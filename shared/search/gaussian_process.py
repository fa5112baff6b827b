"""A Gaussian process on a unit cube, in NumPy: what is expected at a point, and how uncertain that is. Pure.

Matern 5/2 with a length for each parameter and noise, fitted by maximum a posteriori. The prior of the lengths grows
with the number of parameters: in a larger space each of them is expected to matter less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from highnoon.shared.search.encoding import Cube, Points

Vector = NDArray[np.float64]

_FIT_STEPS = 30

_LENGTH_SPREAD = 1.0
_NOISE, _NOISE_SPREAD = math.log(1e-2), 1.5
_LOWEST = math.log(1e-6)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a fit gives: inverse squared lengths, and the variance of the noise."""

    weights: Vector
    noise: float

    @classmethod
    def fitted(cls, cube: Cube, points: Points, values: Vector) -> Shape:
        """The most probable one for values of mean 0 and deviation 1."""
        return cls(*_fitted(cube.squared_gaps(points), values))


class GaussianProcess:
    """Given values of mean 0 and deviation 1."""

    def __init__(self, cube: Cube, points: Points, values: Vector, shape: Shape) -> None:
        self._cube = cube
        self._shape = shape
        self._known = cube.stretched(points, shape.weights)
        self._values = values
        self._solve()

    def add_pending(self, points: Points) -> None:
        """Adds points that are under way, as if they came out as expected: nothing is learnt, less is uncertain."""
        if len(points):
            expected, _ = self.predict(points)
            self._known = np.vstack([self._known, self._cube.stretched(points, self._shape.weights)])
            self._values = np.concatenate([self._values, expected])
            self._solve()

    def predict(self, points: Points) -> tuple[Vector, Vector]:
        """Mean and deviation of the function itself, without noise."""
        across = _matern(_squared_distances(self._cube.stretched(points, self._shape.weights), self._known))
        half = across @ self._inverse_root.T
        variance = np.maximum(1.0 - np.einsum("ij,ij->i", half, half), 1e-10)
        return half @ self._reduced, np.sqrt(variance)

    def _solve(self) -> None:
        covariance = _matern(_squared_distances(self._known, self._known))
        covariance[np.diag_indices_from(covariance)] += self._shape.noise
        self._inverse_root = np.linalg.inv(np.linalg.cholesky(covariance))
        self._reduced = self._inverse_root @ self._values


def _squared_distances(left: Points, right: Points) -> Points:
    sums = np.einsum("ij,ij->i", left, left)[:, None] + np.einsum("ij,ij->i", right, right)
    squared: Points = np.maximum(sums - 2 * (left @ right.T), 0.0)
    return squared


def log_expected_improvement(mean: Vector, deviation: Vector, best: float) -> Vector:
    """Of how much a point is expected to lie below `best`; as a logarithm, since it is tiny nearly everywhere."""
    z = (best - mean) / deviation
    near = np.maximum(z, -5.0)
    density = np.exp(-(near**2) / 2) / math.sqrt(2 * math.pi)
    share = 0.5 * _error_function_complement(-near / math.sqrt(2))
    inside = np.log(np.maximum(density + near * share, 1e-300))
    far = np.minimum(z, -5.0)
    # The first terms of the asymptotic series.
    outside = -(far**2) / 2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(-far) + np.log1p(-3 / far**2)
    return cast(Vector, np.where(z > -5.0, inside, outside) + np.log(deviation))


def _error_function_complement(x: Vector) -> Vector:
    return np.fromiter(map(math.erfc, x), dtype=float, count=len(x))


def _matern(squared: Points) -> Points:
    root = np.sqrt(5 * squared)
    return (1 + root + root**2 / 3) * np.exp(-root)


def _fitted(distances: NDArray[np.float64], values: Vector) -> tuple[Vector, float]:
    """Inverse squared lengths, and the variance of the noise: a few steps of Rprop on the posterior's gradient."""
    width = len(distances)
    prior = np.append(np.full(width, math.log(0.5) + 0.5 * math.log(width)), _NOISE)
    spread = np.append(np.full(width, _LENGTH_SPREAD), _NOISE_SPREAD)
    at, best, most = prior.copy(), prior.copy(), -math.inf
    step, before = np.full(width + 1, 0.3), np.zeros(width + 1)
    for _ in range(_FIT_STEPS):
        likelihood, slope = _likelihood(at, distances, values)
        likelihood -= float(np.sum(((at - prior) / spread) ** 2)) / 2
        slope = slope - (at - prior) / spread**2
        if likelihood > most:
            best, most = at.copy(), likelihood
        same = slope * before
        step = np.clip(np.where(same > 0, step * 1.3, np.where(same < 0, step * 0.5, step)), 1e-3, 1.0)
        before = np.where(same < 0, 0.0, slope)
        at = np.maximum(at + np.sign(before) * step, _LOWEST)
    return np.exp(-2 * best[:-1]), float(np.exp(best[-1]))


def _likelihood(at: Vector, distances: NDArray[np.float64], values: Vector) -> tuple[float, Vector]:
    weights, noise = np.exp(-2 * at[:-1]), math.exp(at[-1])
    squared = np.tensordot(weights, distances, axes=1)
    root = np.sqrt(5 * squared)
    decay = np.exp(-root)
    covariance = (1 + root + root**2 / 3) * decay + noise * np.eye(len(values))
    triangle = np.linalg.cholesky(covariance)
    half = np.linalg.inv(triangle)
    inverse = half.T @ half
    alpha = inverse @ values
    likelihood = -0.5 * float(values @ alpha) - float(np.log(np.diag(triangle)).sum())
    surplus = np.outer(alpha, alpha) - inverse
    by_length = (5 / 3) * (1 + root) * decay * surplus
    slope = 0.5 * np.tensordot(distances, by_length, axes=2) * weights
    return likelihood, np.append(slope, 0.5 * noise * float(np.trace(surplus)))
