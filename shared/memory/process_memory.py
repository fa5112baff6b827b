"""Memory of processes: one alone, and one with all that it started.

Exact is `smaps_rollup`, for which the kernel walks every page table: 15 ms for a process that has TensorFlow loaded.
Resident size takes microseconds but counts pages that are shared with other processes in full.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, replace

from highnoon.shared.memory.kernel_files import KernelFiles

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Bytes. `pss` divides each page among the processes that map it; `private` is what the process' end frees."""

    rss_bytes: int
    pss_bytes: int
    private_bytes: int
    swap_bytes: int = 0


def process_memory(pid: int, files: KernelFiles | None = None) -> ProcessMemory | None:
    """The exact memory of `pid` now; None when there is no such process or the kernel does not show it.

    Not psutil: it counts swapped pages that a fork shares once for each process.
    """
    sizes = (files or KernelFiles()).table(f"/proc/{pid}/smaps_rollup")
    if "Rss" not in sizes:
        return None
    return ProcessMemory(
        rss_bytes=sizes["Rss"],
        pss_bytes=sizes.get("Pss", sizes["Rss"]),
        private_bytes=sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0),
        swap_bytes=sizes.get("SwapPss", sizes.get("Swap", 0)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMemory:
    """Bytes of all processes of a tree; pages that they share are counted once, but in full in `resident_bytes`.

    `shared_bytes` is their part (by PSS) of pages that other processes may map too. `peak_bytes` is now, or the root's
    high-water mark where that has risen since the tree was made. `largest_rss_bytes` and `neighbour_rss_bytes` are the
    largest single processes inside and outside, measured alike so that they compare.
    """

    resident_bytes: int = 0
    private_bytes: int = 0
    shared_bytes: int = 0
    swap_bytes: int = 0
    peak_bytes: int = 0
    largest_rss_bytes: int = 0
    neighbour_rss_bytes: int = 0

    @property
    def bytes(self) -> int:
        """What the tree holds in RAM."""
        return self.private_bytes + self.shared_bytes


class ProcessTree:
    """A process with its descendants, and with the process group and session that it leads. Never raises.

    Expensive are `find`, a pass over all of /proc (6 ms for 250 processes), and `exact`. Cheap are `follow`, which
    reads the children of the known processes, and `estimate`: one short file for each process.
    """

    def __init__(self, pid: int, files: KernelFiles | None = None) -> None:
        self._pid = pid
        self._files = files or KernelFiles()
        self.pids: tuple[int, ...] = (pid,)
        self._neighbour_rss_bytes = 0
        # A study in process runs trials one after the other: what an earlier one needed is not this one's peak.
        self._highest_before, _ = self._highest_and_now_bytes()
        # Just forked, all that is resident is inherited; what is not is counted until the first exact reading.
        self._last = TreeMemory(resident_bytes=self._rss(pid))

    def find(self) -> None:
        """Finds all its processes: forks stay in group and session, and those that left them are descendants still.

        In a container only the container's processes are seen.
        """
        residents: dict[int, int] = {}
        children = defaultdict(list)
        found = [self._pid]
        for name in self._files.names("/proc"):
            text = self._files.text(f"/proc/{name}/stat") if name.isdigit() else None
            if not text:
                continue  # not a process, or one that has just ended
            # The name in parentheses may contain blanks and parentheses; after the last one there are only numbers.
            fields, pid = text.rpartition(")")[2].split(), int(name)
            residents[pid] = int(fields[21]) * _PAGE_BYTES
            children[int(fields[1])].append(pid)
            if pid != self._pid and self._pid in (int(fields[2]), int(fields[3])):
                found.append(pid)
        members = set(found)
        for pid in found:
            found.extend(child for child in children[pid] if child not in members)
            members.update(children[pid])
        self._neighbour_rss_bytes = max((rss for pid, rss in residents.items() if pid not in members), default=0)
        self.pids = tuple(found)
        self._files.close()

    def follow(self) -> None:
        """Adds new descendants of the known processes; misses orphans. Same as `find` where the kernel has no list."""
        if not self._files.exists(f"/proc/self/task/{os.getpid()}/children"):
            self.find()
            return
        found = [pid for pid in self.pids if self._files.exists(f"/proc/{pid}")]
        for pid in found:
            for thread in self._files.names(f"/proc/{pid}/task"):
                children = self._files.text(f"/proc/{pid}/task/{thread}/children") or ""
                found.extend(child for child in map(int, children.split()) if child not in found)
        self.pids = tuple(found)

    def exact(self) -> TreeMemory | None:
        """The known processes by their page tables; None when none of them exists.

        Without PSS (before Linux 4.14, another user's process) RSS stands in: too much rather than too little.
        """
        residents = {pid: rss for pid in self.pids if (rss := self._rss(pid))}
        if not residents:
            return None
        known = {pid: process_memory(pid, self._files) for pid in residents}
        total = sum(memory.pss_bytes if memory else residents[pid] for pid, memory in known.items())
        private = sum(memory.private_bytes if memory else residents[pid] for pid, memory in known.items())
        highest, now = self._highest_and_now_bytes()
        self._last = TreeMemory(
            resident_bytes=sum(residents.values()),
            private_bytes=min(private, total),
            shared_bytes=max(0, total - private),
            swap_bytes=sum(memory.swap_bytes for memory in known.values() if memory),
            peak_bytes=total + (max(0, highest - now) if highest > self._highest_before else 0),
            largest_rss_bytes=max(residents.values()),
            neighbour_rss_bytes=self._neighbour_rss_bytes,
        )
        return self._last

    def inherited_bytes(self) -> int:
        """What of `shared_bytes` of the last `exact` may come from the parent of the root; never less than does.

        Each process that inherits a page has the same part of it (by PSS) as the parent, whose page tables are read.
        """
        fields = (self._files.text(f"/proc/{self._pid}/stat") or "").rpartition(")")[2].split()
        parent = process_memory(int(fields[1]), self._files) if fields else None
        if parent is None:
            return self._last.shared_bytes
        return min(self._last.shared_bytes, len(self.pids) * max(0, parent.pss_bytes - parent.private_bytes))

    def estimate(self) -> TreeMemory:
        """The last `exact` (before it: nothing), moved by the growth of RSS since then; new processes count in full."""
        rss = [self._rss(pid) for pid in self.pids]
        private = max(0, self._last.private_bytes + sum(rss) - self._last.resident_bytes)
        return replace(
            self._last,
            resident_bytes=sum(rss),
            private_bytes=private,
            peak_bytes=max(self._last.peak_bytes, private + self._last.shared_bytes),
            largest_rss_bytes=max(rss, default=0),
        )

    @property
    def has_pss(self) -> bool:
        """False where the kernel does not divide shared pages among the processes that map them."""
        return process_memory(self._pid, self._files) is not None

    def _rss(self, pid: int) -> int:
        text = self._files.text(f"/proc/{pid}/statm", keep_open=True)
        return int(text.split()[1]) * _PAGE_BYTES if text else 0

    def _highest_and_now_bytes(self) -> tuple[int, int]:
        """(the highest RSS that the root ever had, its RSS now): the peak between two readings."""
        sizes = self._files.table(f"/proc/{self._pid}/status")
        return sizes.get("VmHWM", 0), sizes.get("VmRSS", 0)
