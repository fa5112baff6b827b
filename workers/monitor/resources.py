"""The resources of one attempt on its node: a lock beside the others or alone, memory limits, a cgroup if possible.

Acquired before the trial process exists and released when nothing of it is left. An attempt that must wait for the
lock renews its lease meanwhile. `trial_memory` watches what the trial then does with its memory.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.workers.monitor.admission import MEASURED
from highnoon.workers.monitor.kill_selection import KillRecords
from highnoon.workers.monitor.memory_policy import NodeLimits, TrialLimits
from highnoon.workers.monitor.services import Services
from highnoon.workers.monitor.trial_cgroups import TrialGroup, TrialGroups
from highnoon.workers.monitor.trial_memory import TrialMemory
from highnoon.workers.node import Node
from highnoon.workers.trial.process import Assignment

_NODE, _GATE = 0, 1
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Of one attempt. `refusal` is its outcome when it did not get the lock; then nothing else counts."""

    node: MemoryPoller
    records: KillRecords
    limits: TrialLimits | None = None
    group: TrialGroup | None = None
    groups: TrialGroups | None = None
    is_alone: bool = False
    refusal: Outcome | None = None

    def marked(self, assignment: Assignment) -> Assignment:
        """With the limit that counts here, for the guard inside the trial, and the cgroup that it joins."""
        if self.limits is None:
            return assignment
        wishes = replace(assignment.task.memory, trial_memory_limit=self.limits.hard_bytes)
        task = replace(assignment.task, memory=wishes)
        return replace(assignment, task=task, cgroup=self.group.procs if self.group else None)

    def next_cgroup(self) -> str | None:
        """The file by which the process of the next trial joins its group ahead; None where this one has no group."""
        return None if self.group is None or self.groups is None else self.groups.make_next()

    def memory_of(self, pid: int | None) -> TrialMemory | None:
        """The trial's memory; None where it is the supervisor's own, or cannot be read."""
        if pid is None or self.limits is None:
            return None
        return TrialMemory(pid, self.limits, self.node, self.records, group=self.group, is_alone=self.is_alone)


class ResourceAllocator:
    """Allocates for one supervisor, which makes one attempt at a time."""

    def __init__(self, node: Node) -> None:
        self._slots = node.slots
        self._poller = MemoryPoller()
        self._records = KillRecords(node.folder)
        self._groups = TrialGroups.find()
        self._lock = ExclusiveLock(node.folder / "exclusive.lock")

    @contextmanager
    def take(self, spec: StudySpec, services: Services, *, alone: bool) -> Iterator[Resources]:
        """Waits for the lock if need be. Raises LeaseLost if the lease is lost meanwhile."""
        outcome: Outcome | None = None

        def may_wait() -> bool:
            nonlocal outcome
            outcome = services.interruption()
            return outcome is None

        taken = Resources(node=self._poller, records=self._records, is_alone=alone)
        with self._lock.acquired(alone=alone, may_wait=may_wait) as is_acquired:
            if not is_acquired:
                yield replace(taken, refusal=outcome)
                return
            limits = self._limits(spec)
            group = None
            if limits is not None and self._groups is not None and spec.isolation != "none":
                group = self._groups.make(limits.hard_bytes)
            try:
                yield replace(taken, limits=limits, group=group, groups=self._groups)
            finally:
                if group is not None:
                    group.remove()

    def close(self) -> None:
        """Removes what was made for a next attempt."""
        if self._groups is not None:
            self._groups.remove_next()

    def _limits(self, spec: StudySpec) -> TrialLimits | None:
        """For each attempt: an operator may change a cgroup's limit."""
        node_bytes = self._poller.limit_bytes()
        # A measured trial may be larger than a share: admission has reserved the room.
        wanted = spec.trial_memory_limit or (node_bytes if spec.admission == MEASURED else None)
        if node_bytes is None:
            return None if wanted is None else TrialLimits.of(wanted, wanted, spec.memory_warning_pct)
        node = NodeLimits(node_bytes=node_bytes, slots=self._slots)
        return TrialLimits.of(node.limit_bytes(wanted), node.share_bytes, spec.memory_warning_pct)


class ExclusiveLock:
    """Trials share the node, and one that a neighbour pushed out has it exclusively. Raises OSError if a disk fails.

    Two locks of the kernel on one file, held by supervisors. They belong to the process and end with it, however it
    ends, and no trial inherits them:

        node    shared by each running trial, exclusive for one that must be alone
        gate    passed by each that enters, held by one that waits to be alone: so no other enters meanwhile

    A supervisor that waits holds nothing that a running trial needs, so no two wait for each other.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Kept open for the process's life: closing any descriptor of a file releases all its locks.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def acquired(self, *, alone: bool, may_wait: Callable[[], bool]) -> Iterator[bool]:
        """True with the lock; False when `may_wait`, called ten times a second, returned False before it was free."""
        try:
            yield self._acquire(alone, may_wait)
        finally:
            self._release(_GATE)
            self._release(_NODE)

    def _acquire(self, alone: bool, may_wait: Callable[[], bool]) -> bool:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        while True:
            if self._try(_GATE, kind):
                is_acquired = self._try(_NODE, kind)
                if is_acquired or not alone:
                    self._release(_GATE)
                if is_acquired:
                    return True
            if not may_wait():
                return False
            time.sleep(_LOOK_S)

    def _try(self, byte: int, kind: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _release(self, byte: int) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)
