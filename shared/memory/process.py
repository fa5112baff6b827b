"""Memory of one process, from `smaps_rollup`, `statm` and `status`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from highnoon.shared.memory.kernel_files import KernelFiles

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Bytes of one process. `pss` shares each page among those that map it; `private` is what its end gives back."""

    rss_bytes: int
    pss_bytes: int
    private_bytes: int
    swap_bytes: int = 0


def process_memory(pid: int, files: KernelFiles | None = None) -> ProcessMemory | None:
    """The memory of `pid` now; None when the process is gone or the kernel does not tell.

    Exact and dear: the kernel walks every page table, 15 ms for a process that has TensorFlow loaded.
    """
    told = (files or KernelFiles()).table(f"/proc/{pid}/smaps_rollup")
    if not told or "Rss" not in told:
        return None
    return ProcessMemory(
        rss_bytes=told["Rss"],
        pss_bytes=told.get("Pss", told["Rss"]),
        private_bytes=told.get("Private_Clean", 0) + told.get("Private_Dirty", 0),
        swap_bytes=told.get("SwapPss", told.get("Swap", 0)),
    )


def resident_bytes(pid: int, files: KernelFiles, *, again: bool = False) -> int | None:
    """RSS of `pid` for a few microseconds; counts pages shared with others in full.

    `again`: it will be asked for time and again, until the caller lets go of the files.
    """
    text = (files.text_again if again else files.text)(f"/proc/{pid}/statm")
    return int(text.split()[1]) * PAGE_BYTES if text else None


def highest_and_now_bytes(pid: int, files: KernelFiles) -> tuple[int, int]:
    """(the highest RSS that the process ever had, its RSS now): the peak between two looks. Zeros when it is gone."""
    told = files.table(f"/proc/{pid}/status") or {}
    return told.get("VmHWM", 0), told.get("VmRSS", 0)
