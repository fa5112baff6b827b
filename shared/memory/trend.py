"""Whether memory rises or falls, and when it will be gone. In seconds, so that steps of any length are judged alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from highnoon.shared.domain.states import StrEnum

WINDOW = 8
"""Samples that a trend is drawn from: four seconds of short steps, eight of the long ones."""

_FEWEST = 4
"""Below this, one allocation would look like a trend."""

HORIZON_S = 300.0
"""A change counts when it matters within five minutes: rising if memory will be gone by then, falling if the pressure
will be over by then. The public system's 50 MB per step meant 50 GB/s to one model and 1 MB/s to another."""


class Trend(StrEnum):
    """The guide's three words."""

    RISING = "rising"
    FALLING = "falling"
    STABLE = "stable"


def slope(points: Sequence[tuple[float, int]]) -> float:
    """Bytes per second through (seconds, bytes): the median over all pairs (Theil and Sen), 0 with too few points.

    Least squares would take a single large allocation for growth; the median ignores it until it goes on.
    """
    if len(points) < _FEWEST:
        return 0.0
    pairs = [
        (later - earlier) / (end - begin)
        for number, (begin, earlier) in enumerate(points)
        for end, later in points[number + 1 :]
        if end > begin
    ]
    return median(pairs) if pairs else 0.0


def trend_of(bytes_per_s: float, *, free_bytes: int, surplus_bytes: int) -> Trend:
    """The word for a slope, `free_bytes` below the limit and `surplus_bytes` above where the pressure ends."""
    if bytes_per_s > 0 and free_bytes <= bytes_per_s * HORIZON_S:
        return Trend.RISING
    if bytes_per_s < 0 and surplus_bytes <= -bytes_per_s * HORIZON_S:
        return Trend.FALLING
    return Trend.STABLE


def exhausted_in_s(points: Sequence[tuple[float, int]], free_bytes: int) -> float:
    """Seconds until nothing is free, at the slowest pace of the last checks; infinite unless it rose at each of them.

    So one large allocation that then stays is no forecast, though for some checks it bends every trend.
    """
    last = points[-_FEWEST:]
    if len(last) < _FEWEST:
        return float("inf")
    paces = [
        (later - earlier) / (end - begin) if end > begin else 0.0 for (begin, earlier), (end, later) in pairwise(last)
    ]
    return free_bytes / min(paces) if min(paces) > 0 else float("inf")
