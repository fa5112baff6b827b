"""Which points none beats in everything, and how much they beat together. Pure.

One front for loss and size, for a study's own objectives and for another Optuna program's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

Point = tuple[float, ...]
"""Smaller is better in each."""


def minimized(values: Sequence[float], directions: Sequence[str]) -> Point:
    """The values as numbers of which the smaller is better."""
    return tuple(-one if way == "maximize" else one for one, way in zip(values, directions, strict=True))


def pareto_front(candidates: Iterable[T], point: Callable[[T], Point]) -> list[T]:
    """Those that none beats, by their first value; of equals all, in the order in which they were given."""
    kept: list[T] = []
    points: list[Point] = []
    # In this order only what is kept already can beat the next one, and equals follow one another.
    for at, candidate in sorted(((point(one), one) for one in candidates), key=lambda pair: pair[0]):
        if points and points[-1] == at:
            kept.append(candidate)
        elif not any(_is_no_worse(other, at) for other in points):
            kept.append(candidate)
            points.append(at)
    return kept


def pareto_ranks(points: Sequence[Point], at_least: int | None = None) -> list[int]:
    """The rank of each: 0 on the front, 1 on the front of what is left without it, and so on. Of equals all.

    With `at_least` only so many are ranked, and all of their last front; the others get a rank beyond any.
    """
    ranks = [len(points)] * len(points)
    left, rank = set(range(len(points))), 0
    end = 0 if at_least is None else max(0, len(points) - at_least)
    while len(left) > end:
        now = pareto_front(left, lambda place: points[place])
        for place in now:
            ranks[place] = rank
        left, rank = left.difference(now), rank + 1
    return ranks


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """The volume between the points and the reference, which is worse than all that counts."""
    inside = [one for one in points if all(value < end for value, end in zip(one, reference, strict=True))]
    return _volume(pareto_front(inside, lambda one: one), reference)


def _volume(points: Sequence[Point], reference: Point) -> float:
    """Slices along the last dimension; `points` are a front, all of them inside."""
    if len(reference) == 1:
        return reference[0] - min(point[0] for point in points) if points else 0.0
    if len(reference) == 2:
        volume, top = 0.0, reference[1]
        for first, second in sorted(points):
            volume += (reference[0] - first) * max(0.0, top - second)
            top = min(top, second)
        return volume
    volume = 0.0
    ordered = sorted(points, key=lambda point: point[-1])
    for place, point in enumerate(ordered):
        end = ordered[place + 1][-1] if place + 1 < len(ordered) else reference[-1]
        if end > point[-1]:
            below = pareto_front([other[:-1] for other in ordered[: place + 1]], lambda one: one)
            volume += (end - point[-1]) * _volume(below, reference[:-1])
    return volume


def hypervolume_history(points: Sequence[Point], reference: Point) -> list[float]:
    """The volume after each point."""
    history: list[float] = []
    kept: list[Point] = []
    volume = 0.0
    for point in points:
        if not any(_is_no_worse(other, point) for other in kept):
            kept = [other for other in kept if not _is_no_worse(point, other)] + [point]
            volume = hypervolume(kept, reference)
        history.append(volume)
    return history


def _is_no_worse(one: Point, other: Point) -> bool:
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
