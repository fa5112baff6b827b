"""A memory cgroup for each attempt, where this node may make one: the kernel keeps the limit and counts its kills.

Below the worker's own group, so that every limit above it still holds:

    version 1    <own>/highnoon-<supervisor>-<its start>-<number>   the worker itself stays in <own>
    version 2    <own>/highnoon-node                                the worker moves here: a group with limits below
                 <own>/highnoon-<supervisor>-<its start>-<number>   it holds no processes itself

A process that joins a group waits some ten milliseconds for the kernel, so the group of the next attempt is made ahead,
without a limit, and the process that waits for that attempt joins it meanwhile. What that process holds until then is
little, and counts to the attempt.

Where the file system is read-only, or other processes share <own> (version 2), there are none, and only the
supervisor keeps the limits. Nothing here raises: a node works without groups.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

from highnoon.shared.memory.cgroup import CgroupMemory, Cgroups, group_memory
from highnoon.shared.memory.kernel_files import KernelFiles
from highnoon.shared.runtime.processes import identify

_NODE = "highnoon-node"
_TRIAL = re.compile(r"highnoon-(\d+)-(\d+)(?:-\d+)?")
"""Groups of an older version have no last number."""
_EMPTY_WITHIN_S = 1.0
"""A killed process leaves its group when the kernel has freed its memory."""


class TrialGroup:
    """The group of one attempt. `join` runs in the trial process, everything else in its supervisor."""

    def __init__(self, folder: Path, version: int) -> None:
        self._folder = folder
        self._version = version

    @property
    def procs(self) -> str:
        """The file into which a process writes 0 to join."""
        return str(self._folder / "cgroup.procs")

    def memory(self) -> CgroupMemory | None:
        """What it holds and how many of its processes the kernel has killed."""
        return group_memory(str(self._folder), self._version, KernelFiles())

    def holds(self, pid: int) -> bool:
        """True once that process is in it."""
        return str(pid) in _words(self._folder / "cgroup.procs")

    def remove(self) -> bool:
        """Kills what is left in it; False when it cannot be removed, and is left to the agent."""
        return _remove(self._folder)


class TrialGroups:
    """Where this node makes the groups of its attempts."""

    def __init__(self, parent: Path, version: int) -> None:
        self._parent = parent
        self._version = version
        self._made = 0
        self._next: Path | None = None

    @classmethod
    def prepare(cls, root: Path = Path("/")) -> TrialGroups | None:
        """For the agent, before it starts anything: prepares the own group, and tries to make one below.

        None where this node may not.
        """
        own = Cgroups(os.getpid(), KernelFiles(root))
        if own.leaf is None or (own.version == 2 and not _move_aside(_below(root, own.leaf))):
            return None
        groups = cls.find(root)
        probe = groups.make(1 << 30) if groups else None
        return groups if probe is not None and probe.remove() else None

    @classmethod
    def find(cls, root: Path = Path("/")) -> TrialGroups | None:
        """For a supervisor: what the agent has prepared."""
        own = Cgroups(os.getpid(), KernelFiles(root))
        if own.leaf is None:
            return None
        leaf = _below(root, own.leaf)
        if own.version == 1:
            # Without hierarchy the limits above would not hold for the groups below.
            return cls(leaf, 1) if _words(leaf / "memory.use_hierarchy") != ["0"] else None
        return cls(leaf.parent, 2) if leaf.name == _NODE else None

    def make_next(self) -> str | None:
        """Makes the group of the next attempt ahead; the file into which a process writes 0 to join, None when the
        kernel refuses."""
        if self._next is None or not self._next.exists():
            self._next = self._new_folder()
        return None if self._next is None else TrialGroup(self._next, self._version).procs

    def make(self, limit_bytes: int) -> TrialGroup | None:
        """The group of this process's next attempt, with its limit; None when the kernel refuses."""
        folder, self._next = self._next or self._new_folder(), None
        if folder is None:
            return None
        limit = str(limit_bytes)
        try:
            _write(folder / ("memory.limit_in_bytes" if self._version == 1 else "memory.max"), limit)
        except OSError:
            _remove(folder)
            return None
        # Swap is part of the limit where possible (version 1), else forbidden: it only delays the end.
        optional = {"memory.swap.max": "0", "memory.oom.group": "1"}
        for name, value in ({"memory.memsw.limit_in_bytes": limit} if self._version == 1 else optional).items():
            with contextlib.suppress(OSError):
                _write(folder / name, value)
        return TrialGroup(folder, self._version)

    def remove_next(self) -> None:
        """Removes the group that was made ahead, with the process that waits in it."""
        if self._next is not None:
            _remove(self._next)
            self._next = None

    def _new_folder(self) -> Path | None:
        me = identify(os.getpid())
        if me is None:
            return None
        self._made += 1
        folder = self._parent / f"highnoon-{me.pid}-{me.started_ticks}-{self._made}"
        try:
            folder.mkdir()
        except OSError:
            return None
        return folder

    def sweep(self) -> int:
        """Removes the groups of supervisors that are dead, with what still runs in them; how many could be removed.

        However many cannot be removed, it takes no longer than for one.
        """
        give_up_at = time.monotonic() + _EMPTY_WITHIN_S
        try:
            folders = [folder for folder in self._parent.iterdir() if _is_orphaned(folder.name)]
        except OSError:
            return 0
        return sum(_remove(folder, give_up_at) for folder in folders)


def _below(root: Path, folder: str) -> Path:
    return root / folder.lstrip("/")


def _move_aside(own: Path) -> bool:
    """Version 2: this process leaves `own`, which may then have groups with limits. False when it may not."""
    if own.name == _NODE:
        return True
    aside = own / _NODE
    try:
        aside.mkdir(exist_ok=True)
        _write(aside / "cgroup.procs", str(os.getpid()))
    except OSError:
        return False
    try:
        _write(own / "cgroup.subtree_control", "+memory")
    except OSError:  # other processes are in `own`, and not ours to move
        with contextlib.suppress(OSError):
            _write(own / "cgroup.procs", str(os.getpid()))
            aside.rmdir()
        return False
    return True


def _is_orphaned(name: str) -> bool:
    found = _TRIAL.fullmatch(name)
    if found is None:
        return False
    owner = identify(int(found[1]))
    return owner is None or owner.started_ticks != int(found[2])


def _remove(folder: Path, give_up_at: float | None = None) -> bool:
    """Kills what is in the group, once at least. True when there is no such group any more."""
    deadline = time.monotonic() + _EMPTY_WITHIN_S if give_up_at is None else give_up_at
    while folder.exists():
        for pid in _words(folder / "cgroup.procs"):
            with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
                os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):
            folder.rmdir()
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _write(path: Path, value: str) -> None:
    # Not write_text: that would create a file where the kernel has none.
    with os.fdopen(os.open(path, os.O_WRONLY), "w") as file:
        file.write(value)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
