"""A machine of files: /proc and /sys as the kernel would show them, for readers that are given a root."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.memory.poller import MemoryPoller

PAGE = os.sysconf("SC_PAGE_SIZE")
MOUNT = "/sys/fs/cgroup"
_MOUNTS = {
    1: f"31 27 0:28 / {MOUNT} rw - tmpfs tmpfs rw\n32 31 0:29 / {MOUNT}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    f"35 31 0:32 {{root}} {MOUNT}/memory rw shared:9 - cgroup cgroup rw,memory\n",
    2: f"31 27 0:28 {{root}} {MOUNT} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
}


class KernelTree:
    """Grows a fake machine below `root`; every method may be called again for a later moment."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def with_host(self, total: int, *, available: int, swap: int = 0, swap_free: int = 0) -> KernelTree:
        sizes = {
            "MemTotal": total,
            "MemFree": available // 2,
            "MemAvailable": available,
            "SwapCached": 0,
            "SwapTotal": swap,
            "SwapFree": swap_free,
        }
        self.write("/proc/meminfo", "".join(f"{name + ':':16}{size >> 10:8} kB\n" for name, size in sizes.items()))
        return self

    def with_process(
        self,
        pid: int,
        *,
        pss: int,
        rss: int | None = None,
        parent: int = 1,
        session: int = 0,
        swap: int = 0,
        highest_rss: int | None = None,
        name: str = "python",
    ) -> KernelTree:
        rss = pss if rss is None else rss
        fields = ["S", str(parent), "0", str(session), *["0"] * 17, str(rss // PAGE), "0"]
        self.write(f"/proc/{pid}/stat", f"{pid} ({name}) {' '.join(fields)}\n")
        self.write(f"/proc/{pid}/statm", f"900000 {rss // PAGE} 100 1 0 5 0\n")
        self.write(
            f"/proc/{pid}/status", f"Name:\t{name}\nVmHWM:\t{(highest_rss or rss) >> 10} kB\nVmRSS:\t{rss >> 10} kB\n"
        )
        self.write(
            f"/proc/{pid}/smaps_rollup",
            "55c58b097000-7ffc0809a000 ---p 00000000 00:00 0                          [rollup]\n"
            f"Rss: {rss >> 10} kB\nPss: {pss >> 10} kB\nPrivate_Clean: 0 kB\nPrivate_Dirty: {pss >> 10} kB\n"
            f"Swap: {swap >> 9} kB\nSwapPss: {swap >> 10} kB\n",
        )
        return self

    def with_cgroup(
        self,
        pid: int,
        version: int,
        path: str,
        *,
        limit: int | None,
        usage: int,
        droppable: int = 0,
        active: int = 0,
        unwritten: int = 0,
        slab: int = 0,
        oom_kills: int = 0,
        swap: int = 0,
        mounted: str = "/",
    ) -> KernelTree:
        """Makes `path` the group of `pid`; `mounted` is the group that the mount shows as its root."""
        groups = (
            f"9:name=systemd:/x\n4:memory:{path}\n3:cpu,cpuacct:{path}\n0::/x\n" if version == 1 else f"0::{path}\n"
        )
        self.write(f"/proc/{pid}/cgroup", groups)
        self.write(f"/proc/{pid}/mountinfo", _MOUNTS[version].format(root=mounted))
        below = path if mounted == "/" else path.removeprefix(mounted)
        sizes = {"usage": usage, "droppable": droppable, "active": active, "unwritten": unwritten, "slab": slab}
        self.with_group(version, below, limit=limit, oom_kills=oom_kills, swap=swap, **sizes)
        return self

    def with_group(
        self,
        version: int,
        path: str,
        *,
        limit: int | None,
        usage: int,
        droppable: int = 0,
        active: int = 0,
        unwritten: int = 0,
        slab: int = 0,
        oom_kills: int = 0,
        swap: int = 0,
    ) -> KernelTree:
        """The files of one group, which need not have members."""
        if version == 1:
            folder = f"{MOUNT}/memory{path}"
            self.write(f"{folder}/memory.limit_in_bytes", f"{2**63 - 4096 if limit is None else limit}\n")
            self.write(f"{folder}/memory.usage_in_bytes", f"{usage}\n")
            self.write(f"{folder}/memory.max_usage_in_bytes", f"{usage + 1}\n")
            self.write(f"{folder}/memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {oom_kills}\n")
            stat = f"cache 1\ninactive_file 3\ntotal_cache 9\ntotal_dirty {unwritten}\ntotal_writeback 0\n"
            stat += f"total_inactive_file {droppable}\ntotal_active_file {active}\ntotal_swap {swap}\n"
            self.write(f"{folder}/memory.stat", stat)
            return self
        folder = f"{MOUNT}{path}"
        self.write(f"{folder}/memory.max", "max\n" if limit is None else f"{limit}\n")
        self.write(f"{folder}/memory.current", f"{usage}\n")
        self.write(f"{folder}/memory.peak", f"{usage + 1}\n")
        self.write(f"{folder}/memory.events", f"low 0\nhigh 0\nmax 3\noom 1\noom_kill {oom_kills}\noom_group_kill 0\n")
        self.write(f"{folder}/memory.swap.current", f"{swap}\n")
        stat = f"anon 5\nfile 9\nslab_reclaimable {slab}\nfile_dirty 0\nfile_writeback {unwritten}\n"
        self.write(f"{folder}/memory.stat", f"{stat}inactive_file {droppable}\nactive_file {active}\n")
        return self

    def with_stalls(self, path: str, full_avg10: float) -> KernelTree:
        averages = "avg60=0.00 avg300=0.00 total=1"
        lines = f"some avg10=90.00 {averages}\nfull avg10={full_avg10:.2f} {averages}\n"
        self.write(path, lines)
        return self

    def poller(self, pid: int, gpu: tuple[int, int] | None = None, **settings: Any) -> MemoryPoller:
        """A poller of this machine; `gpu` is (used, total) of its only card."""
        cards = [] if gpu is None else [gpu]
        return MemoryPoller(pid, root=self.root, gpus=Gpus(FakeNvml(cards), visible=None), **settings)


class FakeNvml:
    """What we use of the module `pynvml`."""

    def __init__(self, cards: list[tuple[int, int]], *, fails: bool = False) -> None:
        self.cards = cards
        self.fails = fails
        self.times_initialised = 0

    def nvmlInit(self) -> None:
        self.times_initialised += 1
        if self.fails:
            raise RuntimeError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return range(len(self.cards))[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return int(uuid.rpartition("-")[2])

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-x-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"Card of tests"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        used, total = self.cards[handle]
        return SimpleNamespace(used=used, total=total, free=total - used)
