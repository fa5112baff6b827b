"""Memory limits that the kernel enforces on groups of processes: cgroup v2, v1 and hosts that mix the two.

Finds the group of a process once, with every ancestor that can be seen, since each of them may hold a limit and
the tightest one kills. Inside a container the mount usually shows the container's own group as the root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from highnoon.shared.memory.kernel_files import KernelFiles

_NO_LIMIT_BYTES = 1 << 60
"""Version 1 says "none" as the largest page-aligned number (2^63 - 4096); no machine has an exbibyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupMemory:
    """Bytes of one group with a limit. `used_bytes` leaves out the page cache that the kernel drops first."""

    path: str
    limit_bytes: int
    used_bytes: int
    swap_bytes: int
    peak_bytes: int | None
    oom_kills: int | None


@dataclass(frozen=True, slots=True)
class _Names:
    """How one version of cgroups spells the same things."""

    limit: str
    usage: str
    peak: str
    events: str
    droppable: str
    swap: str


_V2 = _Names("memory.max", "memory.current", "memory.peak", "memory.events", "inactive_file", "swap")
_V1 = _Names(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.oom_control",
    "total_inactive_file",
    "total_swap",
)


class Cgroups:
    """The groups of `pid`, leaf first. Never raises; without cgroups there are none."""

    def __init__(self, pid: int, files: KernelFiles) -> None:
        self._files = files
        self._names, self._folders = _group_of(pid, files)
        self._known: tuple[CgroupMemory, ...] = ()

    @property
    def version(self) -> int | None:
        """1 or 2, whichever has the memory controller; None without one."""
        return (1 if self._names is _V1 else 2) if self._folders else None

    @property
    def leaf(self) -> str | None:
        """The folder of the process' own group; None without cgroups."""
        return self._folders[0] if self._folders else None

    def read(self) -> tuple[CgroupMemory, ...]:
        """Every group with a limit, leaf first. Limits are read anew: an operator may change them."""
        levels = (self._level(folder) for folder in self._folders)
        self._known = tuple(level for level in levels if level is not None)
        return self._known

    def estimate(self) -> tuple[CgroupMemory, ...]:
        """The last `read` with usage as it is now, the rest as it was: two files for each limit."""
        return tuple(map(self._moved, self._known))

    def oom_kills(self) -> int | None:
        """How many processes of the own group the kernel has killed for memory; None when it does not count."""
        return _oom_kills(self._folders[0], self._names, self._files) if self._folders else None

    def _level(self, folder: str) -> CgroupMemory | None:
        return _read(folder, self._names, self._files)

    def _moved(self, level: CgroupMemory) -> CgroupMemory:
        usage = self._files.text_again(f"{level.path}/{self._names.usage}")
        stat = self._files.text_again(f"{level.path}/memory.stat")
        droppable = re.search(rf"^{self._names.droppable} (\d+)", stat or "", re.M)
        if not usage or droppable is None:
            return level
        return replace(level, used_bytes=max(0, int(usage) - int(droppable.group(1))))


def group_memory(folder: str, version: int, files: KernelFiles) -> CgroupMemory | None:
    """One group whose folder is known; None when it is gone or has no limit."""
    return _read(folder, _V1 if version == 1 else _V2, files)


def _read(folder: str, names: _Names, files: KernelFiles) -> CgroupMemory | None:
    limit = files.number(f"{folder}/{names.limit}")
    usage = files.number(f"{folder}/{names.usage}")
    if limit is None or usage is None or limit >= _NO_LIMIT_BYTES:
        return None
    stat = files.table(f"{folder}/memory.stat") or {}
    swap = files.number(f"{folder}/memory.swap.current") if names is _V2 else None
    return CgroupMemory(
        path=folder,
        limit_bytes=limit,
        used_bytes=max(0, usage - stat.get(names.droppable, 0)),
        swap_bytes=stat.get(names.swap, 0) if swap is None else swap,
        peak_bytes=files.number(f"{folder}/{names.peak}"),
        oom_kills=_oom_kills(folder, names, files),
    )


def _oom_kills(folder: str, names: _Names, files: KernelFiles) -> int | None:
    return (files.table(f"{folder}/{names.events}") or {}).get("oom_kill")


def _group_of(pid: int, files: KernelFiles) -> tuple[_Names, tuple[str, ...]]:
    """The version that has the memory controller, and the folders from the process' group up to the mount."""
    paths = {}
    for line in (files.text(f"/proc/{pid}/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            paths["cgroup"] = path
        elif number == "0":
            paths["cgroup2"] = path
    kind = "cgroup" if "cgroup" in paths else "cgroup2"
    mount = _mount_of(kind, pid, files) if kind in paths else None
    if mount is None:
        return _V2, ()
    root, point = mount
    folders = _folders(paths[kind], root, point)
    return (_V1 if kind == "cgroup" else _V2), tuple(folder for folder in folders if files.exists(folder))


def _mount_of(kind: str, pid: int, files: KernelFiles) -> tuple[str, str] | None:
    """(which group is mounted, where), from lines like `31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw`."""
    for line in (files.text(f"/proc/{pid}/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, filesystem = before.split(), after.split()
        if filesystem[0] == kind and (kind == "cgroup2" or "memory" in filesystem[-1].split(",")):
            return fields[3], fields[4]
    return None


def _folders(path: str, root: str, point: str) -> list[str]:
    try:
        below = PurePosixPath(path).relative_to(root)
    except ValueError:
        below = PurePosixPath()  # the group lies outside of what is mounted: the mount itself limits us at least
    return [str(PurePosixPath(point) / part) for part in (below, *below.parents)]
