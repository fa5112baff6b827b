"""The kernel's small text files, and what the files of the whole machine contain: memory, swap, stalls, OOM kills.

Not psutil: the same readings run between two training steps, where files that stay open cost a third of its price.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_READ_AT_ONCE = 65536
"""More than any file of one record has, which the kernel gives whole; of several records it gives some 4 KB at once."""

_MEMINFO = re.compile(r"MemTotal: +(\d+).*?MemAvailable: +(\d+).*?SwapTotal: +(\d+).*?SwapFree: +(\d+)", re.DOTALL)
"""In the kernel's own order; four of some fifty lines."""

_FULL_AVG10 = re.compile(r"^full avg10=([0-9.]+)", re.MULTILINE)


class KernelFiles:
    """Files of /proc and /sys below `root`, which tests may choose. A file that cannot be read gives None."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = "" if root == Path("/") else str(root)
        self._open: dict[str, int] = {}

    def __del__(self) -> None:
        self.close()

    def text(self, path: str, *, keep_open: bool = False) -> str | None:
        """The whole file. With `keep_open` it stays open until `close`, which halves the cost of the next reading, and
        must be a file of one record: it is read by one call.

        `path` is absolute. The kernel generates the content again for each reading from the beginning.
        """
        descriptor = self._open.get(path) if keep_open else None
        try:
            if descriptor is None:
                # Not pathlib: it takes a third of the time that a check between two training steps may cost.
                descriptor = os.open(f"{self._root}{path}", os.O_RDONLY | os.O_CLOEXEC)
                if keep_open:
                    self._open[path] = descriptor
            try:
                if keep_open:
                    return os.pread(descriptor, _READ_AT_ONCE, 0).decode(errors="replace")
                return _whole(descriptor).decode(errors="replace")
            finally:
                if not keep_open:
                    os.close(descriptor)
        except OSError:
            if path in self._open:  # of a process that has ended; its number may be used again
                os.close(self._open.pop(path))
            return None

    def close(self) -> None:
        """Closes the files that were kept open: processes end, and their files with them."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def number(self, path: str) -> int | None:
        """The one number in a file; None also for the word `max`."""
        text = self.text(path)
        return int(text) if text is not None and text.strip().isdigit() else None

    def table(self, path: str) -> dict[str, int]:
        """Lines of a name and a number, sizes in kB converted to bytes; empty when the file cannot be read."""
        found = {}
        for line in (self.text(path) or "").splitlines():
            name, *words = line.split() or [""]
            if words and words[0].isdigit():
                found[name.rstrip(":")] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
        return found

    def names(self, path: str) -> list[str]:
        """The entries of a folder; empty when it cannot be read."""
        try:
            return os.listdir(f"{self._root}{path}")  # noqa: PTH208
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """True for a file or folder that exists."""
        return Path(f"{self._root}{path}").exists()


def _whole(descriptor: int) -> bytes:
    content = b""
    while part := os.pread(descriptor, _READ_AT_ONCE, len(content)):
        content += part
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Bytes of the whole machine. `used_bytes` is what is neither free nor can be reclaimed without swapping."""

    total_bytes: int
    used_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int


def host_memory(files: KernelFiles) -> HostMemory | None:
    """The machine's memory now; None without /proc/meminfo."""
    found = _MEMINFO.search(files.text("/proc/meminfo", keep_open=True) or "")
    if found is None:
        return None
    total, available, swap_total, swap_free = (int(kilobytes) * 1024 for kilobytes in found.groups())
    return HostMemory(
        total_bytes=total,
        used_bytes=total - available,
        swap_total_bytes=swap_total,
        swap_used_bytes=swap_total - swap_free,
    )


def stalled_share(files: KernelFiles, cgroup: str | None = None) -> float | None:
    """The share of the last 10 s in which every task waited for memory, from 0 to 1; None without PSI.

    For `cgroup` (a folder) where the kernel counts it there, else for the machine.
    """
    text = (files.text(f"{cgroup}/memory.pressure") if cgroup else None) or files.text("/proc/pressure/memory")
    found = _FULL_AVG10.search(text or "")
    return float(found.group(1)) / 100 if found else None


def host_oom_kills(files: KernelFiles) -> int | None:
    """How many processes the kernel has killed for memory since boot; None before Linux 4.13."""
    return files.table("/proc/vmstat").get("oom_kill")
