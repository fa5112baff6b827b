"""Swap that grows under a trial: the last thing that happens before a machine stands still."""

from __future__ import annotations

from collections import deque

from highnoon.shared.memory.sample import MemorySample

SPIKE_BYTES = 500 << 20
"""The public system's figure for one check."""

SPIKE_WINDOW_S = 60.0
"""... which we ask of a minute (8 MB/s), since checks may be milliseconds or minutes apart."""

GROWTH_BYTES = 4 * SPIKE_BYTES
"""However slowly: more than this since the start is no longer the kernel putting idle pages away."""

_OWN_SHARE = 0.5
"""The trial's own part in a spike; swapping that only others do is no reason."""

_KEEP_EVERY_S = 1.0
"""A minute of samples at any pace without keeping a thousand of them."""

_Point = tuple[float, int, int]
"""Seconds, bytes of swap in use, bytes of the trial (resident and swapped)."""


class SwapWatch:
    """Growth of swap over the least since the start and the least of a minute: what was in use before is no growth."""

    def __init__(self, baseline: MemorySample) -> None:
        self._lowest = baseline.swap_used_bytes
        self._lowest_own = _own(baseline)
        self._lowest_swapped = baseline.process_swap_bytes
        self._points: deque[_Point] = deque([(baseline.at_s, self._lowest, self._lowest_own)])

    def spike(self, sample: MemorySample, *, is_short: bool) -> int | None:
        """The growth in bytes that is reason to stop at once, else None. `is_short`: memory is close to a threshold.

        The trial took part when it was swapped out itself, or grew while memory was short and so drove others out.
        """
        recent, recent_own = self._grown_in_window(sample)
        grown = sample.swap_used_bytes - self._lowest
        swapped = sample.process_swap_bytes - self._lowest_swapped
        own = _own(sample) - self._lowest_own
        self._remember(sample)
        needed = _OWN_SHARE * SPIKE_BYTES
        if recent >= SPIKE_BYTES and (swapped >= needed or (is_short and recent_own >= needed)):
            return recent
        if grown >= GROWTH_BYTES and (swapped >= needed or (is_short and own >= needed)):
            return grown
        return None

    def _grown_in_window(self, sample: MemorySample) -> tuple[int, int]:
        """Growth of swap and of the trial since their least in the window; the last point counts at any distance."""
        points = self._points
        while len(points) > 1 and sample.at_s - points[0][0] > SPIKE_WINDOW_S:
            points.popleft()
        return (
            sample.swap_used_bytes - min(point[1] for point in points),
            _own(sample) - min(point[2] for point in points),
        )

    def _remember(self, sample: MemorySample) -> None:
        self._lowest = min(self._lowest, sample.swap_used_bytes)
        self._lowest_own = min(self._lowest_own, _own(sample))
        self._lowest_swapped = min(self._lowest_swapped, sample.process_swap_bytes)
        if sample.at_s - self._points[-1][0] >= _KEEP_EVERY_S:
            self._points.append((sample.at_s, sample.swap_used_bytes, _own(sample)))


def _own(sample: MemorySample) -> int:
    return sample.process_bytes + sample.process_swap_bytes
