"""Samples for the guard, made of vitals. Decides how often the dear, exact reading is worth its time."""

from __future__ import annotations

import time
from collections.abc import Callable

from highnoon.shared.memory.process_tree import TreeMemory
from highnoon.shared.memory.reader import Vitals, VitalsReader
from highnoon.shared.memory.sample import MemorySample, Scope

_SHORT_SHARE = 1 / 100
"""Of the time that goes by, what exact readings may take while memory is short: beside TensorFlow one in 1.7 s."""

_MOVED_SHARE = 1 / 1000
"""... and while usage has moved, but is far from any threshold: one in 17 s."""

_CALM_EVERY_S = 300.0
"""... and while nothing happens."""

_MOVED_BY = 0.05
"""Usage that moved by this much of the limit since the last exact reading asks for one: a child may have come."""

_NOBODY = TreeMemory(bytes=0, swap_bytes=0, peak_bytes=0, processes=0, largest_rss_bytes=0, neighbour_rss_bytes=0)


class MemorySampler:
    """Called with `is_short` (an episode may begin); never raises. `limit_bytes` is None if nothing is seen.

    `trial_limit_bytes` is a limit of the trial's own, beside the machine's and its groups'.
    """

    def __init__(
        self,
        reader: VitalsReader,
        trial_limit_bytes: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._reader = reader
        self._trial_limit_bytes = trial_limit_bytes
        self._clock = clock
        self._cost_s = 0.0
        self._exact_at = clock()
        first = self._exactly()
        self._used_then = _used(first)
        limits = [limit for limit in (first.limit_bytes, trial_limit_bytes) if limit is not None]
        self.limit_bytes: int | None = min(limits, default=None)

    def __call__(self, is_short: bool) -> MemorySample:
        """The sample now."""
        vitals = self._reader.read(deep=False)
        if self._clock() - self._exact_at >= self._pause_s(vitals, is_short):
            vitals = self._exactly()
        return self._sample(vitals)

    def missing(self) -> tuple[str, ...]:
        """What the reader cannot watch here."""
        return self._reader.missing()

    def _exactly(self) -> Vitals:
        began = self._clock()
        vitals = self._reader.read()
        self._exact_at = self._clock()
        self._cost_s = self._exact_at - began
        self._used_then = _used(vitals)
        return vitals

    def _pause_s(self, vitals: Vitals, is_short: bool) -> float:
        """How long after the last exact reading the next may come."""
        if is_short:
            return self._cost_s / _SHORT_SHARE
        return self._cost_s / _MOVED_SHARE if self._has_moved(vitals) else _CALM_EVERY_S

    def _has_moved(self, vitals: Vitals) -> bool:
        if self.limit_bytes is None:
            return False
        return abs(_used(vitals) - self._used_then) >= _MOVED_BY * self.limit_bytes

    def _sample(self, vitals: Vitals) -> MemorySample:
        tree = vitals.tree or _NOBODY
        return MemorySample(
            at_s=vitals.at_s,
            scopes=tuple(self._scopes(vitals, tree)),
            process_bytes=tree.bytes,
            process_swap_bytes=tree.swap_bytes,
            peak_bytes=tree.peak_bytes,
            swap_used_bytes=_swap(vitals),
            is_largest=tree.largest_rss_bytes >= tree.neighbour_rss_bytes,
            stalled_share=vitals.stalled_share or 0.0,
            gpu_used_bytes=sum(gpu.used_bytes for gpu in vitals.gpus) if vitals.gpus else None,
            gpu_total_bytes=sum(gpu.total_bytes for gpu in vitals.gpus) if vitals.gpus else None,
        )

    def _scopes(self, vitals: Vitals, tree: TreeMemory) -> list[Scope]:
        scopes = []
        if vitals.host is not None:
            scopes.append(Scope(name="host", limit_bytes=vitals.host.total_bytes, used_bytes=vitals.host.used_bytes))
        for group in vitals.cgroups:
            if group.limit_bytes > 0:
                scopes.append(Scope(name=group.path, limit_bytes=group.limit_bytes, used_bytes=group.used_bytes))
        if self._trial_limit_bytes is not None:
            scopes.append(Scope(name="trial", limit_bytes=self._trial_limit_bytes, used_bytes=tree.bytes, is_own=True))
        return scopes


def _used(vitals: Vitals) -> int:
    """Of the machine, or of the group where that is all there is."""
    if vitals.host is not None:
        return vitals.host.used_bytes
    return vitals.cgroups[0].used_bytes if vitals.cgroups else 0


def _swap(vitals: Vitals) -> int:
    """The machine's, which the kernel counts at each moment; a group's is only as fresh as the last exact reading."""
    if vitals.host is not None:
        return vitals.host.swap_used_bytes
    return vitals.cgroups[0].swap_bytes if vitals.cgroups else 0
