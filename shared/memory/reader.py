"""All vitals of one process and its machine at one moment. Reads, adds nothing, judges nothing.

Two depths, because what is exact is dear: `deep` walks page tables and /proc (17 ms beside TensorFlow), the other
reads a few short files and moves the last deep reading by what they say (30 us).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.memory.cgroup import CgroupMemory, Cgroups
from highnoon.shared.memory.gpu import GpuMemory, Gpus
from highnoon.shared.memory.host import HostMemory, host_memory, host_oom_kills, stalled_share
from highnoon.shared.memory.kernel_files import KernelFiles
from highnoon.shared.memory.process_tree import ProcessTree, TreeMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """One reading. What cannot be seen here is None or empty; `VitalsReader.missing` names it."""

    at_s: float
    host: HostMemory | None
    cgroups: tuple[CgroupMemory, ...]
    tree: TreeMemory | None
    stalled_share: float | None
    gpus: tuple[GpuMemory, ...]

    @property
    def limit_bytes(self) -> int | None:
        """The least of the machine's memory and every group's limit; None when nothing can be seen."""
        limits = [group.limit_bytes for group in self.cgroups]
        if self.host is not None:
            limits.append(self.host.total_bytes)
        return min(limits, default=None)


class VitalsReader:
    """Reads for one process, by default this one. Never raises.

    `root` is where /proc and /sys stand, `gpus` the driver and `clock` the time: tests bring their own.
    """

    def __init__(
        self,
        pid: int | None = None,
        *,
        root: Path = Path("/"),
        gpus: Gpus | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        pid = os.getpid() if pid is None else pid
        self._files = KernelFiles(root)
        self._tree = ProcessTree(pid, self._files)
        self._cgroups = Cgroups(pid, self._files)
        self._gpus = Gpus() if gpus is None else gpus
        self._clock = clock
        self._gpus_then: tuple[GpuMemory, ...] = ()
        self._stalled_then: float | None = None

    def read(self, *, deep: bool = True) -> Vitals:
        """The vitals now; a shallow reading takes GPUs, stalls, new children and swapped pages as they were."""
        if deep:
            self._files.let_go()
            self._gpus_then = self._gpus.read()
            self._stalled_then = stalled_share(self._files, self._cgroups.leaf)
        return Vitals(
            at_s=self._clock(),
            host=host_memory(self._files),
            cgroups=self._cgroups.read() if deep else self._cgroups.estimate(),
            tree=self._tree.read() if deep else self._tree.estimate(),
            stalled_share=self._stalled_then,
            gpus=self._gpus_then,
        )

    def oom_kills(self) -> int | None:
        """The kernel's count of kills for memory in the own group, else on the machine; proof only as a difference."""
        own = self._cgroups.oom_kills()
        return host_oom_kills(self._files) if own is None else own

    def missing(self) -> tuple[str, ...]:
        """What cannot be watched here, each in words for a person. Costs a deep reading: ask once."""
        host = host_memory(self._files)
        absent = {
            "RAM of the machine (no /proc/meminfo)": host is None,
            "swap (the machine has none)": host is not None and host.swap_total_bytes == 0,
            "limits of containers (no cgroup memory controller)": self._cgroups.version is None,
            "shared pages (no smaps_rollup, RSS counts them in full)": not self._tree.has_pss,
            "memory stalls (no PSI)": stalled_share(self._files, self._cgroups.leaf) is None,
            "GPU memory (pip install nvidia-ml-py)": not self._gpus.is_readable
            and self._files.exists("/proc/driver/nvidia"),
        }
        return tuple(words for words, is_absent in absent.items() if is_absent)
