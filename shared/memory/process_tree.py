"""A process with all that it started, and the largest process that is none of it.

Children hold memory too (data loaders, worker pools), and one that lost its parent is no longer found here: the
group that a supervisor kills is its business. In a container only the container's processes are seen.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from highnoon.shared.memory.kernel_files import KernelFiles
from highnoon.shared.memory.process import PAGE_BYTES, highest_and_now_bytes, process_memory, resident_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMemory:
    """Bytes of a process and its descendants; pages that they share are counted once.

    `peak_bytes` is now, or the root's high-water mark where that has risen since the reader was made.
    `largest_rss_bytes` and `neighbour_rss_bytes` are the largest single processes inside and outside, measured alike
    so that they compare.
    """

    bytes: int
    swap_bytes: int
    peak_bytes: int
    processes: int
    largest_rss_bytes: int
    neighbour_rss_bytes: int


class ProcessTree:
    """The tree below `pid`. `read` is exact; `estimate` is cheap and sees no process younger than the last `read`."""

    def __init__(self, pid: int, files: KernelFiles) -> None:
        self._pid = pid
        self._files = files
        # A study in process runs trials one after the other: what an earlier one needed is not this one's peak.
        self._highest_then, _ = highest_and_now_bytes(pid, files)
        self._last: TreeMemory | None = None
        self._rss_then: dict[int, int] = {}

    def read(self) -> TreeMemory | None:
        """The whole tree now; None when the root is gone. One pass over /proc, then the page tables of the tree."""
        residents, children = self._everybody()
        if self._pid not in residents:
            return None
        pids = _descendants(self._pid, children)
        exact = {pid: process_memory(pid, self._files) for pid in pids}
        # Without PSS (before Linux 4.14, another user's process) RSS stands in: too much rather than too little.
        total = sum(memory.pss_bytes if memory else residents[pid] for pid, memory in exact.items())
        self._rss_then = {pid: resident_bytes(pid, self._files, again=True) or residents[pid] for pid in pids}
        self._last = TreeMemory(
            bytes=total,
            swap_bytes=sum(memory.swap_bytes for memory in exact.values() if memory),
            peak_bytes=total + self._above_now_bytes(),
            processes=len(pids),
            largest_rss_bytes=max(residents[pid] for pid in pids),
            neighbour_rss_bytes=max((rss for pid, rss in residents.items() if pid not in exact), default=0),
        )
        return self._last

    def estimate(self) -> TreeMemory | None:
        """The last `read`, moved by what its processes have grown or shrunk since; a real one when there is none."""
        last = self._last
        if last is None:
            return self.read()
        rss = {pid: resident_bytes(pid, self._files, again=True) or 0 for pid in self._rss_then}
        if not rss[self._pid]:
            return None
        total = max(0, last.bytes + sum(rss.values()) - sum(self._rss_then.values()))
        return TreeMemory(
            bytes=total,
            swap_bytes=last.swap_bytes,
            peak_bytes=max(last.peak_bytes, total),
            processes=last.processes,
            largest_rss_bytes=max(rss.values()),
            neighbour_rss_bytes=last.neighbour_rss_bytes,
        )

    @property
    def has_pss(self) -> bool:
        """False where the kernel does not split shared pages among their users."""
        return process_memory(self._pid, self._files) is not None

    def _above_now_bytes(self) -> int:
        highest, now = highest_and_now_bytes(self._pid, self._files)
        return max(0, highest - now) if highest > self._highest_then else 0

    def _everybody(self) -> tuple[dict[int, int], dict[int, list[int]]]:
        """RSS of every process that can be seen, and who has which children."""
        residents: dict[int, int] = {}
        children: dict[int, list[int]] = defaultdict(list)
        for name in self._files.names("/proc"):
            text = self._files.text(f"/proc/{name}/stat") if name.isdigit() else None
            if not text:
                continue  # no process, or one that ended meanwhile
            # The name in parentheses may hold blanks and parentheses; what follows the last one is numbers.
            fields = text.rpartition(")")[2].split()
            residents[int(name)] = int(fields[21]) * PAGE_BYTES
            children[int(fields[1])].append(int(name))
        return residents, children


def _descendants(root: int, children: dict[int, list[int]]) -> list[int]:
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found
