"""What a node has, for people who look: memory, cores, GPUs, version. The agent says it with each beat.

    {"version", "cpus", "memory_total_bytes", "memory_used_bytes",
     "gpus": [{"uuid", "name", "memory_total_bytes", "memory_used_bytes"}, ...]}

Costs a few small files and one call of the driver. Decides nothing: what a trial may use is the watchdog's business.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from shared.vitals import Cgroups, Gpus, KernelFiles, host_memory


class NodeFacts:
    """Reads for the agent's process, whose limits are the node's."""

    def __init__(self, files: KernelFiles | None = None, gpus: Gpus | None = None) -> None:
        self._files = KernelFiles() if files is None else files
        self._gpus = Gpus() if gpus is None else gpus
        self._cgroups = Cgroups(os.getpid(), self._files)
        self._version = _version()

    def read(self) -> dict[str, Any]:
        """The facts now, as JSON values; what cannot be seen is None. Never raises."""
        used, total = self._memory()
        return {
            "version": self._version,
            "cpus": len(os.sched_getaffinity(0)),
            "memory_total_bytes": total,
            "memory_used_bytes": used,
            "gpus": [asdict(device) for device in self._gpus.devices()],
        }

    def _memory(self) -> tuple[int | None, int | None]:
        """Of the tightest limit: a container sees its own, not the machine's."""
        host = host_memory(self._files)
        levels = [(group.limit_bytes, group.used_bytes) for group in self._cgroups.read()]
        if host is not None:
            levels.append((host.total_bytes, host.used_bytes))
        if not levels:
            return None, None
        total, used = min(levels)
        return used, total


def _version() -> str | None:
    try:
        return version("highnoon-hpo")
    except PackageNotFoundError:
        return None
