"""Thresholds, trend and swap: where memory is short, where it is moving, what a person may set. Pure.

Owns the guide's table of machines. Used by the guard inside a trial (`guard`) and by the supervisor and agent outside.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.memory_sizes import memory_limit, memory_limit_problem, warning_fraction_problem
from highnoon.shared.domain.states import StrEnum
from highnoon.shared.memory.poller import MemorySample

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class _Row:
    """What the guide recommends from this much memory on; None leaves the prefetch to tf.data."""

    nominal_gb: int
    warning_fraction: float
    grace_steps: int
    prefetch: int | None


_ROWS = (
    _Row(8, 0.85, 5, 1),
    _Row(16, 0.90, 8, 2),
    _Row(32, 0.95, 10, None),
    _Row(64, 0.95, 15, None),
    _Row(128, 0.98, 20, None),
)
_UNKNOWN = _ROWS[2]
"""The guide's general defaults: for a machine whose memory cannot be read."""

_NOMINAL_SHARE = 0.9
"""Firmware and kernel keep some: a "16 GB" machine reports 15.6 GiB and is to have the row of 16."""

_LEAST_FREE_BYTES = 512 << 20
"""One large allocation of a training step; a threshold that leaves less is reached and passed between two checks."""

_LEAST_FREE_SHARE = 0.1
"""... but not more than this of a small limit, or a 1 GB container would be half closed."""

_MOST_FREE_BYTES = 16 * _GIB
"""Of a very large machine a fraction would leave more than this idle, which only costs trials."""

_CEILING_SHARE = 0.8
"""The hard ceiling lies four fifths of the way from the threshold to the limit (99 % for 95 %): one fifth is what the
kernel needs to go on reclaiming, and the stop itself."""

_MARGIN = 0.02
"""Pressure ends this much of the limit below the threshold, so that usage that varies around it is one episode."""

_CLOSE = 0.1
"""From this much of the limit below the threshold on, memory is read often: it may fill quickly from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPolicy:
    """The guard's settings for one trial. `limit_bytes` is the least limit that holds for it, None when unknown."""

    limit_bytes: int | None
    warning_fraction: float
    grace_steps: int
    prefetch_buffer_size: int | None
    is_fraction_explicit: bool = False

    @classmethod
    def for_limit(
        cls,
        limit_bytes: int | None,
        memory_warning_pct: float | None = None,
        memory_grace_steps: int | None = None,
        prefetch_buffer_size: int | None = None,
    ) -> MemoryPolicy:
        """What a person set, else the guide's row for this limit. Raises InvalidInput with every mistake at once."""
        check_settings("memory settings", memory_warning_pct, memory_grace_steps, prefetch_buffer_size)
        row = _UNKNOWN
        if limit_bytes is not None:
            reached = [row for row in _ROWS if limit_bytes >= _NOMINAL_SHARE * row.nominal_gb * _GIB]
            row = reached[-1] if reached else _ROWS[0]
        return cls(
            limit_bytes=limit_bytes,
            warning_fraction=row.warning_fraction if memory_warning_pct is None else float(memory_warning_pct),
            grace_steps=memory_grace_steps or row.grace_steps,
            prefetch_buffer_size=prefetch_buffer_size or row.prefetch,
            is_fraction_explicit=memory_warning_pct is not None,
        )

    def threshold_bytes(self, limit_bytes: int) -> int:
        """Where warnings begin: the fraction, kept between too little and, unless a person set it, too much free."""
        threshold = self.warning_fraction * limit_bytes
        if not self.is_fraction_explicit:
            threshold = max(threshold, limit_bytes - _MOST_FREE_BYTES)
        return int(min(threshold, limit_bytes - min(_LEAST_FREE_BYTES, _LEAST_FREE_SHARE * limit_bytes)))

    def calm_bytes(self, limit_bytes: int) -> int:
        """Where an episode ends."""
        return int(self.threshold_bytes(limit_bytes) - _MARGIN * limit_bytes)

    def close_bytes(self, limit_bytes: int) -> int:
        """Where frequent checks begin."""
        return int(self.threshold_bytes(limit_bytes) - _CLOSE * limit_bytes)

    def ceiling_bytes(self, limit_bytes: int) -> int:
        """Where a trial stops without regard to trend and grace."""
        threshold = self.threshold_bytes(limit_bytes)
        return int(threshold + _CEILING_SHARE * (limit_bytes - threshold))


def check_settings(
    source: str,
    memory_warning_pct: object = None,
    memory_grace_steps: object = None,
    prefetch_buffer_size: object = None,
    trial_memory_limit: object = None,
) -> None:
    """Raises InvalidInput with every mistake at once; None is never one."""
    problems = [*filter(None, [warning_fraction_problem(memory_warning_pct)])]
    counts = {"memory_grace_steps": memory_grace_steps, "prefetch_buffer_size": prefetch_buffer_size}
    for key, count in counts.items():
        if count is not None and not (isinstance(count, int) and not isinstance(count, bool) and count >= 1):
            problems.append(Problem(key=key, message="must be a whole number, at least 1", value=count))
    if trial_memory_limit is not None and memory_limit(trial_memory_limit) is None:
        problems.append(memory_limit_problem(trial_memory_limit))
    if problems:
        raise InvalidInput(source, problems)


_FASTEST_FILL_BYTES_PER_S = 2 << 30
"""New memory that one thread can touch, or several in a container; more only where growth has shown it."""


def fill_s(headroom_bytes: int, growth_bytes_per_s: float = 0.0) -> float:
    """The least time in which `headroom_bytes` could be filled: no reading is needed before."""
    return headroom_bytes / max(_FASTEST_FILL_BYTES_PER_S, 2.0 * growth_bytes_per_s)


# --- trend: in seconds, so that steps of any length are judged alike --------------------------------------------------

WINDOW = 8
"""Samples that a trend is computed from: four seconds of short steps, eight of the long ones."""

_FEWEST = 4
"""With fewer, one allocation would look like a trend."""

HORIZON_S = 300.0
"""A change counts when it matters within five minutes: rising if memory will be full by then, falling if the pressure
will be over by then. The public system's 50 MB per step meant 50 GB/s to one model and 1 MB/s to another."""

Points = Sequence[tuple[float, int]]
"""Seconds and bytes in use, oldest first."""


class Trend(StrEnum):
    """The guide's three words."""

    RISING = "rising"
    FALLING = "falling"
    STABLE = "stable"


def slope(points: Points) -> float:
    """Bytes per second: the median over all pairs (Theil and Sen), 0 with too few points.

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


def exhausted_in_s(points: Points, free_bytes: int) -> float:
    """Seconds until nothing is free, at the slowest pace of the last checks; infinite unless it rose at each of them.

    So one large allocation that then stays is no forecast, though it changes every trend for some checks.
    """
    last = points[-_FEWEST:]
    if len(last) < _FEWEST:
        return math.inf
    slowest = min(
        (later - earlier) / (end - begin) if end > begin else 0.0 for (begin, earlier), (end, later) in pairwise(last)
    )
    return free_bytes / slowest if slowest > 0 else math.inf


# --- swap: its growth is the last thing that happens before a machine stands still ------------------------------------

_SPIKE_BYTES = 500 << 20
"""The public system's figure for one check."""

_SPIKE_WINDOW_S = 60.0
"""... which is applied to a minute (8 MB/s), since checks may be milliseconds or minutes apart."""

_GROWTH_BYTES = 4 * _SPIKE_BYTES
"""However slowly: more than this since the start is no longer the kernel swapping idle pages out."""

_OWN_SPIKE_BYTES = _SPIKE_BYTES // 2
"""The trial's own part in a spike; swapping by other processes is no reason."""

_KEEP_EVERY_S = 1.0
"""Covers the window at any pace of checks without keeping a thousand samples."""


class SwapMonitor:
    """Growth of swap over the least since the start and the least of a minute: what was in use before is no growth."""

    def __init__(self, baseline: MemorySample) -> None:
        self._lowest, self._lowest_own = baseline.swap_used_bytes, _own(baseline)
        self._lowest_swapped = baseline.process_swap_bytes
        self._points = deque([(baseline.at_s, self._lowest, self._lowest_own)])

    def spike(self, sample: MemorySample, *, is_short: bool) -> int | None:
        """The growth in bytes that is reason to stop at once, else None. `is_short`: memory is close to a threshold.

        The trial took part when it was swapped out itself, or grew while memory was short and so drove others out.
        """
        used, own, points = sample.swap_used_bytes, _own(sample), self._points
        while len(points) > 1 and sample.at_s - points[0][0] > _SPIKE_WINDOW_S:
            points.popleft()
        recent = used - min(point[1] for point in points)
        recent_own = own - min(point[2] for point in points)
        grown, grown_own = used - self._lowest, own - self._lowest_own
        was_swapped = sample.process_swap_bytes - self._lowest_swapped >= _OWN_SPIKE_BYTES
        self._lowest, self._lowest_own = min(self._lowest, used), min(self._lowest_own, own)
        self._lowest_swapped = min(self._lowest_swapped, sample.process_swap_bytes)
        if sample.at_s - points[-1][0] >= _KEEP_EVERY_S:
            points.append((sample.at_s, used, own))
        if recent >= _SPIKE_BYTES and (was_swapped or (is_short and recent_own >= _OWN_SPIKE_BYTES)):
            return recent
        if grown >= _GROWTH_BYTES and (was_swapped or (is_short and grown_own >= _OWN_SPIKE_BYTES)):
            return grown
        return None


def _own(sample: MemorySample) -> int:
    return sample.process_bytes + sample.process_swap_bytes
