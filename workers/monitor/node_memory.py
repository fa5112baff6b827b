"""The memory of the whole node: the machine's, or the tightest cgroup of the worker. Reads; judges nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from highnoon.shared.memory.cgroup import Cgroups
from highnoon.shared.memory.host import HostMemory, host_memory, host_oom_kills
from highnoon.shared.memory.kernel_files import KernelFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVitals:
    """Bytes. `used_bytes` is what is taken of `limit_bytes`: the limit that has the least left."""

    limit_bytes: int
    used_bytes: int
    swap_used_bytes: int


class NodeMemory:
    """Reads for the group of this process. Never raises."""

    def __init__(self, files: KernelFiles | None = None) -> None:
        self._files = files or KernelFiles()
        self._cgroups = Cgroups(os.getpid(), self._files)

    def limit_bytes(self) -> int | None:
        """The least of machine and cgroups; None when nothing can be seen."""
        return min((limit for limit, _ in self._scopes(host_memory(self._files))), default=None)

    def read(self) -> NodeVitals | None:
        """The node now; None when nothing can be seen."""
        host = host_memory(self._files)
        scopes = self._scopes(host)
        if not scopes:
            return None
        limit, used = min(scopes, key=lambda scope: scope[0] - scope[1])
        return NodeVitals(limit_bytes=limit, used_bytes=used, swap_used_bytes=host.swap_used_bytes if host else 0)

    def oom_kills(self) -> int:
        """How many processes of the worker's own group, else of the machine, the kernel has killed for memory."""
        own = self._cgroups.oom_kills()
        return (host_oom_kills(self._files) if own is None else own) or 0

    def _scopes(self, host: HostMemory | None) -> list[tuple[int, int]]:
        scopes = [] if host is None else [(host.total_bytes, host.used_bytes)]
        return scopes + [(group.limit_bytes, group.used_bytes) for group in self._cgroups.read() if group.limit_bytes]
