"""Memory of the whole machine, and how long it made processes wait (PSI)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from highnoon.shared.memory.kernel_files import KernelFiles

_MEMINFO = "/proc/meminfo"
_PRESSURE = "/proc/pressure/memory"
_TOLD = re.compile(r"MemTotal: +(\d+).*?MemAvailable: +(\d+).*?SwapTotal: +(\d+).*?SwapFree: +(\d+)", re.DOTALL)
"""In the kernel's own order; four of some fifty lines, and this is read between two training steps."""
_FULL_AVG10 = re.compile(r"^full avg10=([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Bytes. `available_bytes` is the kernel's own estimate of what can be had without swapping."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int

    @property
    def used_bytes(self) -> int:
        """What is neither free nor can be given back; the page cache can."""
        return self.total_bytes - self.available_bytes


def host_memory(files: KernelFiles) -> HostMemory | None:
    """The machine's memory now; None when the kernel does not tell."""
    found = _TOLD.search(files.text_again(_MEMINFO) or "")
    if found is None:
        return None
    total, available, swap_total, swap_free = (int(kilobytes) * 1024 for kilobytes in found.groups())
    return HostMemory(
        total_bytes=total,
        available_bytes=available,
        swap_total_bytes=swap_total,
        swap_used_bytes=swap_total - swap_free,
    )


def stalled_share(files: KernelFiles, cgroup: str | None = None) -> float | None:
    """The share of the last 10 s in which every task waited for memory, from 0 to 1; None without PSI.

    That of `cgroup` (a folder) where the kernel keeps one for it, else that of the machine.
    """
    text = (files.text(f"{cgroup}/memory.pressure") if cgroup else None) or files.text(_PRESSURE)
    found = _FULL_AVG10.search(text or "")
    return float(found.group(1)) / 100 if found else None


def host_oom_kills(files: KernelFiles) -> int | None:
    """How many processes the kernel has killed for memory since boot; None before Linux 4.13."""
    return (files.table("/proc/vmstat") or {}).get("oom_kill")
