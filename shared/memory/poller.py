"""The one poller of memory: limits and usage of machine and cgroups, a process with its children, swap, stalls, GPUs.

Used inside a trial by its guard, by the supervisor for the node around its trial, and by the agent. Reads; judges
nothing. Two depths, because an exact reading is expensive: it walks page tables and /proc (17 ms beside TensorFlow),
the other one reads a few short files and moves the last exact reading by what they contain (12 us).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.memory.cgroup import Cgroups
from highnoon.shared.memory.gpu import GpuDevice, Gpus
from highnoon.shared.memory.kernel_files import KernelFiles, host_memory, host_oom_kills, stalled_share
from highnoon.shared.memory.process_memory import ProcessTree, TreeMemory

_SHORT_COST = 100.0
"""While memory is short exact readings take at most this part of the time: beside TensorFlow one in 1.7 s."""

_MOVED_COST = 1000.0
"""... and while usage has moved, but is far from any threshold: one in 17 s."""

_CALM_EVERY_S = 300.0
"""... and while nothing happens."""

_MOVED_BY = 0.05
"""Usage that moved by this much of the limit since the last exact reading asks for one: a child may have started."""

_LIMIT_HOLDS_S = 1.0
"""An operator may change a limit, and short trials ask for it more than a hundred times a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One limit that may be reached: the machine's, a cgroup's, the trial's own. Reclaimable cache is not used."""

    name: str
    limit_bytes: int
    used_bytes: int
    is_own: bool = False
    """Only this trial fills it, so that no neighbour can be the reason."""

    @property
    def free_bytes(self) -> int:
        """What is left before the kernel kills; 0 when over the limit."""
        return max(0, self.limit_bytes - self.used_bytes)

    @property
    def usage(self) -> float:
        """The share in use; above 1 when over the limit."""
        return self.used_bytes / self.limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """One reading. `at_s` is monotonic, the process is the trial with all its descendants, swap is the machine's."""

    at_s: float
    scopes: tuple[Scope, ...]
    process_bytes: int = 0
    process_swap_bytes: int = 0
    peak_bytes: int = 0
    swap_used_bytes: int = 0
    is_largest: bool = True
    """No visible process outside of the trial is larger than the trial's largest."""
    stalled_share: float = 0.0
    """The share of the last 10 s in which every task waited for memory."""
    gpus: tuple[GpuDevice, ...] = ()

    @property
    def limit_bytes(self) -> int | None:
        """The least of all limits; None when no memory can be read."""
        return min((scope.limit_bytes for scope in self.scopes), default=None)

    @property
    def tightest(self) -> Scope | None:
        """The scope that has the least left; None when no memory can be read."""
        return min(self.scopes, key=lambda scope: scope.limit_bytes - scope.used_bytes, default=None)

    def scope(self, name: str) -> Scope | None:
        """The scope of that name; None when it could not be read at this moment."""
        return next((scope for scope in self.scopes if scope.name == name), None)


class ExactSchedule:
    """Decides when an exact reading is worth its time, by what the last one took and how much usage has moved."""

    def __init__(self, clock: Callable[[], float], moved_by: float) -> None:
        self._clock = clock
        self._moved_by = moved_by
        self._at_s = clock()
        self._used_bytes = 0
        self.cost_s = 0.0

    def done(self, began_at_s: float, used_bytes: int) -> None:
        """Call it after each exact reading, with the usage that a cheap one gives."""
        self._at_s = self._clock()
        self.cost_s = self._at_s - began_at_s
        self._used_bytes = used_bytes

    def has_moved(self, used_bytes: int, limit_bytes: int) -> bool:
        """True when usage is far from what it was at the last exact reading."""
        return abs(used_bytes - self._used_bytes) >= self._moved_by * limit_bytes

    def is_over(self, pause_s: float) -> bool:
        """True when the last exact reading is at least `pause_s` ago."""
        return self._clock() - self._at_s >= pause_s


class MemoryPoller:
    """Reads for one process, by default this one. Never raises; `missing` names what cannot be read here.

    `trial_limit_bytes` is a limit of the trial's own, beside the machine's and its groups'. Tests set `root` (where
    /proc and /sys are), `gpus` (the driver) and `clock`.
    """

    def __init__(
        self,
        pid: int | None = None,
        *,
        trial_limit_bytes: int | None = None,
        root: Path = Path("/"),
        gpus: Gpus | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        pid = os.getpid() if pid is None else pid
        self._trial_limit_bytes = trial_limit_bytes
        self._files = KernelFiles(root)
        self._tree = ProcessTree(pid, self._files)
        self._cgroups = Cgroups(pid, self._files)
        self._gpus = Gpus() if gpus is None else gpus
        self._clock = clock
        self.schedule = ExactSchedule(clock, _MOVED_BY)
        self._last: MemorySample | None = None
        self._limit: tuple[float, int | None] = (-math.inf, None)

    def limit_bytes(self) -> int | None:
        """The least of machine, cgroups and the trial's own limit, as of the last second; None when no memory can be
        read."""
        if self._clock() - self._limit[0] >= _LIMIT_HOLDS_S:
            self._limit = self._clock(), self.node().limit_bytes
        return self._limit[1]

    def node(self) -> MemorySample:
        """Machine and cgroups now, without processes: a few short files."""
        return self._sample(is_exact=True, reads_processes=False)

    def exact(self) -> MemorySample:
        """Everything now."""
        began_at = self._clock()
        self._tree.find()
        self._tree.exact()
        self._last = self._sample(is_exact=True)
        self.schedule.done(began_at, _used(self._last))
        return self._last

    def read(self, is_short: bool = False) -> MemorySample:
        """A cheap sample, or an exact one when that is worth its time; `is_short`: pressure may begin or goes on.

        A cheap one takes GPUs, stalls, new children and swapped pages from the last exact one.
        """
        if self._last is None:
            return self.exact()
        sample = self._sample(is_exact=False)
        return self.exact() if self.schedule.is_over(self._pause_s(sample, is_short)) else sample

    def oom_kills(self) -> int | None:
        """The kernel's count of kills for memory in the own group, else on the machine; proof only as a difference."""
        own = self._cgroups.oom_kills()
        return host_oom_kills(self._files) if own is None else own

    def missing(self) -> tuple[str, ...]:
        """What cannot be watched here, in words for a person. As expensive as an exact reading: call it once."""
        host = host_memory(self._files)
        absent = {
            "RAM of the machine (no /proc/meminfo)": host is None,
            "swap (the machine has none)": host is not None and host.swap_total_bytes == 0,
            "limits of containers (no cgroup memory controller)": self._cgroups.leaf is None,
            "shared pages (no smaps_rollup, RSS counts them in full)": not self._tree.has_pss,
            "memory stalls (no PSI)": stalled_share(self._files, self._cgroups.leaf) is None,
            "GPU memory (pip install nvidia-ml-py)": not self._gpus.is_readable
            and self._files.exists("/proc/driver/nvidia"),
        }
        return tuple(words for words, is_absent in absent.items() if is_absent)

    def _sample(self, *, is_exact: bool, reads_processes: bool = True) -> MemorySample:
        host = host_memory(self._files)
        groups = self._cgroups.read() if is_exact else self._cgroups.estimate()
        tree = self._tree.estimate() if reads_processes else TreeMemory()
        scopes = [] if host is None else [Scope(name="host", limit_bytes=host.total_bytes, used_bytes=host.used_bytes)]
        for group in groups:
            if group.limit_bytes > 0:
                scopes.append(Scope(name=group.path, limit_bytes=group.limit_bytes, used_bytes=group.used_bytes))
        if self._trial_limit_bytes is not None:
            scopes.append(Scope(name="trial", limit_bytes=self._trial_limit_bytes, used_bytes=tree.bytes, is_own=True))
        # The kernel counts the machine's swap at each moment; a group's is only as new as the last exact reading.
        swap = host.swap_used_bytes if host else groups[0].swap_bytes if groups else 0
        last = None if is_exact else self._last
        return MemorySample(
            at_s=self._clock(),
            scopes=tuple(scopes),
            process_bytes=tree.bytes,
            process_swap_bytes=tree.swap_bytes,
            peak_bytes=tree.peak_bytes,
            swap_used_bytes=swap,
            is_largest=tree.largest_rss_bytes >= tree.neighbour_rss_bytes,
            stalled_share=last.stalled_share if last else stalled_share(self._files, self._cgroups.leaf) or 0.0,
            gpus=last.gpus if last else self._gpus.devices() if reads_processes else (),
        )

    def _pause_s(self, sample: MemorySample, is_short: bool) -> float:
        """How long after the last exact reading the next may come."""
        if is_short:
            return self.schedule.cost_s * _SHORT_COST
        limit = sample.limit_bytes
        has_moved = limit is not None and self.schedule.has_moved(_used(sample), limit)
        return self.schedule.cost_s * _MOVED_COST if has_moved else _CALM_EVERY_S


def _used(sample: MemorySample) -> int:
    """Of the machine, or of the group where that is all there is."""
    return sample.scopes[0].used_bytes if sample.scopes else 0
