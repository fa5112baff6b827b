"""The place of one attempt on its node: room beside the others or alone, limits, a cgroup where there may be one.

Taken before the trial process exists and given back when nothing of it is left. Whoever must wait for room keeps its
lease meanwhile. What the trial then does with its memory is `trial_memory`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.workers.monitor.admission import MEASURED
from highnoon.workers.monitor.exclusive_lock import Room
from highnoon.workers.monitor.kill_selection import KillNotes
from highnoon.workers.monitor.memory_limits import Allowance, TrialLimits
from highnoon.workers.monitor.node_memory import NodeMemory
from highnoon.workers.monitor.trial_cgroups import TrialGroup, TrialGroups
from highnoon.workers.monitor.trial_memory import TrialMemory
from highnoon.workers.monitor.trial_monitor import Services
from highnoon.workers.node import Node
from highnoon.workers.trial.process import Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One attempt's. `refusal` is its outcome when it did not get as far as this; then nothing else counts."""

    node: NodeMemory
    notes: KillNotes
    limits: TrialLimits | None = None
    group: TrialGroup | None = None
    is_alone: bool = False
    refusal: Outcome | None = None

    def marked(self, assignment: Assignment) -> Assignment:
        """With the limit that counts here, for the guard inside the trial, and the cgroup that it joins."""
        if self.limits is None:
            return assignment
        wishes = replace(assignment.memory, trial_memory_limit=self.limits.hard_bytes)
        return replace(assignment, memory=wishes, cgroup=self.group.procs if self.group else None)

    def memory_of(self, pid: int | None) -> TrialMemory | None:
        """The watch over the trial's memory; None where it is the supervisor's own, or cannot be seen."""
        if pid is None or self.limits is None:
            return None
        return TrialMemory(pid, self.limits, self.node, self.notes, group=self.group, is_alone=self.is_alone)


class Places:
    """Those of one supervisor: it makes one attempt at a time."""

    def __init__(self, node: Node) -> None:
        self._slots = node.slots
        self._memory = NodeMemory()
        self._notes = KillNotes(node.folder / "kills")
        self._groups = TrialGroups.find()
        self._room = Room(node.folder / "room")

    @contextmanager
    def take(self, spec: StudySpec, services: Services, *, alone: bool) -> Iterator[Place]:
        """Waits for room if need be. Raises LeaseLost if the lease is lost meanwhile."""
        waiting = _Waiting(services)
        with self._room.entered(alone=alone, may_wait=waiting) as is_inside:
            if not is_inside:
                yield Place(node=self._memory, notes=self._notes, refusal=waiting.outcome)
                return
            limits = self._limits(spec)
            group = None
            if limits is not None and self._groups is not None and spec.isolation != "none":
                group = self._groups.make(limits.hard_bytes)
            try:
                yield Place(node=self._memory, notes=self._notes, limits=limits, group=group, is_alone=alone)
            finally:
                if group is not None:
                    group.remove()

    def _limits(self, spec: StudySpec) -> TrialLimits | None:
        """Read anew: an operator may change a cgroup's limit."""
        node_bytes = self._memory.limit_bytes()
        # What is measured may be larger than a share: admission sees to it that there is room.
        asked = spec.trial_memory_limit or (node_bytes if spec.admission == MEASURED else None)
        if node_bytes is None:
            return None if asked is None else TrialLimits.of(asked, asked, spec.memory_warning_pct)
        allowance = Allowance(node_bytes=node_bytes, slots=self._slots)
        return TrialLimits.of(allowance.limit_bytes(asked), allowance.share_bytes, spec.memory_warning_pct)


class _Waiting:
    """Asked while there is no room: renews the lease in time, and ends the waiting when study or node want that."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.outcome: Outcome | None = None

    def __call__(self) -> bool:
        self.outcome = self._services.interruption()
        return self.outcome is None
