"""Memory limits that the kernel enforces on groups of processes: cgroup v2, v1 and hosts that mix the two.

Finds the group of a process once, with every ancestor that can be seen, since each of them may have a limit and
the tightest one kills. Inside a container the mount usually shows the container's own group as the root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from highnoon.shared.memory.kernel_files import KernelFiles

_NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes "none" as the largest page-aligned number (2^63 - 4096); no machine has an exbibyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupMemory:
    """Bytes of one group with a limit. `used_bytes` leaves out the caches that the kernel can drop."""

    path: str
    limit_bytes: int
    used_bytes: int
    swap_bytes: int
    peak_bytes: int | None
    oom_kills: int | None
    has_run_out: bool
    """False where this group never met its own limit, so that only one above it can have run out. Version 1 does not
    count that, and has True."""


@dataclass(frozen=True, slots=True)
class _Names:
    """The file names and keys of one version of cgroups."""

    limit: str
    usage: str
    peak: str
    events: str
    file_pages: tuple[str, str]
    """Page cache, however recently it was read."""
    unwritten: tuple[str, str]
    """What of it must be written to a disk first."""
    slab: tuple[str, ...]
    """Caches of names and inodes, which reading many files fills. Version 1 does not count them."""
    swap: str


_NAMES = {
    1: _Names(
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "memory.max_usage_in_bytes",
        "memory.oom_control",
        ("total_inactive_file", "total_active_file"),
        ("total_dirty", "total_writeback"),
        (),
        "total_swap",
    ),
    2: _Names(
        "memory.max",
        "memory.current",
        "memory.peak",
        "memory.events",
        ("inactive_file", "active_file"),
        ("file_dirty", "file_writeback"),
        ("slab_reclaimable",),
        "swap",
    ),
}
_CACHE = {
    version: re.compile(rf"^({'|'.join((*names.file_pages, *names.unwritten, *names.slab))}) (\d+)", re.MULTILINE)
    for version, names in _NAMES.items()
}


class Cgroups:
    """The groups of `pid`, leaf first. Never raises; without cgroups there are none."""

    def __init__(self, pid: int, files: KernelFiles) -> None:
        self._files = files
        self.version, self._folders = groups_of("memory", pid, files)
        self._last: tuple[CgroupMemory, ...] = ()

    @property
    def leaf(self) -> str | None:
        """The folder of the process' own group; None without a memory controller, whatever `version` is."""
        return self._folders[0] if self._folders else None

    def read(self) -> tuple[CgroupMemory, ...]:
        """Every group with a limit, leaf first. Reads the limits each time: an operator may change them."""
        found = (group_memory(folder, self.version, self._files) for folder in self._folders)
        self._last = tuple(group for group in found if group is not None)
        return self._last

    def estimate(self) -> tuple[CgroupMemory, ...]:
        """The last `read` with the usage of now: two files for each limit."""
        return tuple(map(self._updated, self._last))

    def oom_kills(self) -> int | None:
        """How many processes of the own group the kernel has killed for memory; None when it does not count."""
        return self._files.table(f"{self.leaf}/{_NAMES[self.version].events}").get("oom_kill") if self.leaf else None

    def _updated(self, group: CgroupMemory) -> CgroupMemory:
        names = _NAMES[self.version]
        usage = self._files.text(f"{group.path}/{names.usage}", keep_open=True)
        stat = self._files.text(f"{group.path}/memory.stat", keep_open=True)
        cache = {name: int(size) for name, size in _CACHE[self.version].findall(stat or "")}
        if not usage or not cache:
            return group
        return replace(group, used_bytes=_used_bytes(int(usage), cache, names))


def group_memory(folder: str, version: int, files: KernelFiles) -> CgroupMemory | None:
    """One group whose folder is known; None when it does not exist or has no limit."""
    names = _NAMES[version]
    limit = files.number(f"{folder}/{names.limit}")
    usage = files.number(f"{folder}/{names.usage}")
    if limit is None or usage is None or limit >= _NO_LIMIT_BYTES:
        return None
    stat = files.table(f"{folder}/memory.stat")
    swap = files.number(f"{folder}/memory.swap.current") if version == 2 else None
    events = files.table(f"{folder}/{names.events}")
    return CgroupMemory(
        path=folder,
        limit_bytes=limit,
        used_bytes=_used_bytes(usage, stat, names),
        swap_bytes=stat.get(names.swap, 0) if swap is None else swap,
        peak_bytes=files.number(f"{folder}/{names.peak}"),
        oom_kills=events.get("oom_kill"),
        has_run_out=events.get("oom") != 0,
    )


def _used_bytes(usage: int, stat: Mapping[str, int], names: _Names) -> int:
    """Files that are read twice move from one list of the kernel to the other, and can be dropped as before."""
    groups = (names.file_pages, names.unwritten, names.slab)
    cached, unwritten, slab = (sum(stat.get(name, 0) for name in group) for group in groups)
    return max(0, usage - max(0, cached - unwritten) - slab)


def groups_of(controller: str, pid: int, files: KernelFiles) -> tuple[int, tuple[str, ...]]:
    """The version that has this controller, and the folders from the process' group up to the mount."""
    paths = {}
    for line in (files.text(f"/proc/{pid}/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            paths[1] = path
        elif number == "0":
            paths[2] = path
    version = 1 if 1 in paths else 2
    mount = _mount_of(controller, version, pid, files) if paths else None
    if mount is None:
        return version, ()
    root, point = mount
    try:
        below = PurePosixPath(paths[version]).relative_to(root)
    except ValueError:
        below = PurePosixPath()  # the group is outside of what is mounted: the limit of the mount itself still holds
    folders = (str(PurePosixPath(point) / part) for part in (below, *below.parents))
    return version, tuple(folder for folder in folders if files.exists(folder))


def _mount_of(controller: str, version: int, pid: int, files: KernelFiles) -> tuple[str, str] | None:
    """(which group is mounted, where), from lines like `31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw`."""
    kind = "cgroup" if version == 1 else "cgroup2"
    for line in (files.text(f"/proc/{pid}/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, filesystem = before.split(), after.split()
        if filesystem[0] == kind and (version == 2 or controller in filesystem[-1].split(",")):
            return fields[3], fields[4]
    return None
