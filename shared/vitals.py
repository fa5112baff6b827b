"""What the kernel says about memory. The only reader; judges nothing.

Today: one process at a time, from `smaps_rollup`, where pages shared copy-on-write with a supervisor are not
counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Bytes of one process. `pss` shares each page among those that map it; `private` is what its end gives back."""

    rss_bytes: int
    pss_bytes: int
    private_bytes: int


def process_memory(pid: int) -> ProcessMemory | None:
    """The memory of `pid` now; None when the process is gone or the kernel does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    kilobytes = {name.rstrip(":"): int(value) for name, value, *_ in (line.split() for line in lines)}
    if "Rss" not in kilobytes:
        return None
    return ProcessMemory(
        rss_bytes=kilobytes["Rss"] * 1024,
        pss_bytes=kilobytes.get("Pss", kilobytes["Rss"]) * 1024,
        private_bytes=(kilobytes.get("Private_Clean", 0) + kilobytes.get("Private_Dirty", 0)) * 1024,
    )
