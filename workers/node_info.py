"""What a node has, for people who look: memory, cores, GPUs, version. The agent says it with each beat.

    {"version", "cpus", "memory_total_bytes", "memory_used_bytes",
     "gpus": [{"uuid", "name", "memory_total_bytes", "memory_used_bytes"}, ...]}

Costs a few small files and one call of the driver. Decides nothing: `monitor` decides what a trial may use.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.memory.poller import MemoryPoller


class NodeFacts:
    """Reads for the agent's process, whose limits are the node's."""

    def __init__(self, root: Path = Path("/"), gpus: Gpus | None = None) -> None:
        self._gpus = Gpus() if gpus is None else gpus
        self._poller = MemoryPoller(root=root, gpus=self._gpus)
        self._version = _version()

    def read(self) -> dict[str, Any]:
        """The facts now, as JSON values; what cannot be seen is None. Never raises."""
        memory = self._poller.node().tightest
        return {
            "version": self._version,
            "cpus": len(os.sched_getaffinity(0)),
            "memory_total_bytes": memory.limit_bytes if memory else None,
            "memory_used_bytes": memory.used_bytes if memory else None,
            "gpus": [asdict(device) for device in self._gpus.devices()],
        }


def _version() -> str | None:
    try:
        return version("highnoon-hpo")
    except PackageNotFoundError:
        return None
