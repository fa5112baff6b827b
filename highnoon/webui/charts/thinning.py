"""Fewer points than there are trials: what a screen cannot show is left out, evenly, and the figure says so. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from highnoon.shared.domain.trial import Trial
from highnoon.webui.charts.figure import Json

MOST_POINTS = 2000


def every(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[int(index * len(items) / most)] for index in range(most)] if most > 0 else []


def thinned(
    points: Sequence[tuple[int, Any]], most: int, keep: Iterable[tuple[int, Any]] = ()
) -> list[tuple[int, Any]]:
    """Evenly spaced, with all that must be seen."""
    return sorted({*every(points, most), *keep}) if len(points) > most else list(points)


def thinned_trials(trials: Sequence[Trial], most: int) -> list[Trial]:
    """The best fifth of the room for the best trials, the rest evenly spaced over time."""
    if len(trials) <= most:
        return list(trials)
    best = sorted(trials, key=lambda trial: trial.value or 0.0)[: most // 10]
    worst_or_best = sorted(trials, key=lambda trial: trial.value or 0.0)[-most // 10 :]
    chosen = {trial.number: trial for trial in [*best, *worst_or_best, *every(trials, most - most // 5)]}
    return [chosen[number] for number in sorted(chosen)]


def left_out(shown: int, total: int, what: str = "of") -> str:
    if shown >= total:
        return ""
    return f"{shown:,} of {total:,} shown." if what == "of" else f"The {shown:,} {what} of {total:,}."


def clip(axis: Json, values: Sequence[float], *, maximize: bool) -> str:
    """A few diverged values must not flatten all others; plotly's double click shows them."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) < 20:
        return ""
    low, high = ordered[0], ordered[-1]
    middle = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    room = (middle[1] - middle[0]) or abs(middle[0]) or 1.0
    bottom, top = (
        max(low, middle[0] - 1.5 * room) if maximize else low,
        high if maximize else min(high, middle[1] + 1.5 * room),
    )
    if (bottom, top) == (low, high):
        return ""
    axis["range"] = [bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom)]
    beyond = sum(not bottom <= value <= top for value in ordered)
    return f"{beyond:,} far outliers are outside of the picture; a double click shows them." if beyond else ""
