"""The memory of one running trial, sampled from its supervisor: how much, how often to look, and what was seen.

With a cgroup of its own two short files say all. Without one the processes are looked at: RSS is quick and counts too
much (the warm imports that every trial of a node shares), page tables are exact and dear; so the quick look says when
the exact one is worth it, and only the exact one judges. Judgement is `watchdog`'s.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from highnoon.shared.domain.trial import MemoryTrace, Outcome
from highnoon.shared.memory.cgroup import CgroupMemory
from highnoon.shared.memory.process_group import ProcessGroup
from highnoon.shared.memory.sample import MemorySample
from highnoon.shared.memory.swap import SwapWatch
from highnoon.workers.monitor.kill_selection import KillNotes
from highnoon.workers.monitor.memory_limits import TrialLimits
from highnoon.workers.monitor.memory_policy import LOOK_S, Autopsy, Look, Samples, Verdict, judge, pause_s
from highnoon.workers.monitor.node_memory import NodeMemory

_CLOSE_SHARE = 0.9
"""From this much of the soft limit on an exact reading may take a tenth of the time, before it a fiftieth."""

_CLOSE_COST, _CALM_COST = 10.0, 50.0
_CALM_EVERY_S = 10.0
_FIND_EVERY_S = 10.0
"""Who lost its parent is only found by a pass over all processes of the machine."""

_FIRST_AFTER_S = 1.0
"""Most short trials are over before their memory is worth an exact reading."""


class OwnGroup(Protocol):
    """The trial's own cgroup, where it has one."""

    def memory(self) -> CgroupMemory | None:
        """What it holds."""

    def holds(self, pid: int) -> bool:
        """True once the trial has joined."""


class TrialMemory:
    """One attempt's memory, from its launch to its end. Never raises."""

    def __init__(
        self,
        pid: int,
        limits: TrialLimits,
        node: NodeMemory,
        notes: KillNotes,
        *,
        group: OwnGroup | None = None,
        is_alone: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        notes.drop(pid)
        self.limits = limits
        self._pid = pid
        self._node = node
        self._notes = notes
        self._group = group
        self._has_joined = False
        self._is_alone = is_alone
        self._clock = clock
        self._samples = Samples()
        self._processes = Processes(pid, limits, clock)
        self._began_at = self._node_at = clock()
        self._due_at = self._began_at + pause_s(limits.hard_bytes, 0.0)
        self._last = Look(at_s=0.0, used_bytes=0)
        self._node_kills = self._node_kills_before = node.oom_kills()
        self._swap: SwapWatch | None = None
        self._node_swap_bytes = 0
        self._is_swapping = False
        self._swap_spike_bytes: int | None = None

    def due_in_s(self) -> float:
        """Seconds until the next look is worth it."""
        return max(0.0, self._due_at - self._clock())

    def look(self) -> Verdict:
        """Looks now."""
        at_s = self._clock() - self._began_at
        used, swapped, kills = self._read()
        self._look_at_node(used, swapped)
        look = Look(at_s=at_s, used_bytes=used, oom_kills=kills, swap_spike_bytes=self._swap_spike_bytes)
        growth = (used - self._last.used_bytes) / max(0.001, at_s - self._last.at_s)
        self._samples.add(look)
        self._last = look
        self._due_at = self._clock() + pause_s(self.limits.hard_bytes - used, growth)
        return judge(look, self.limits)

    def kill(self) -> None:
        """Ends the trial with all its descendants, also those that have left its process group."""
        self._processes.kill()

    @property
    def peak_bytes(self) -> int:
        """The most that was seen."""
        return self._samples.peak_bytes

    def explain(self, signum: int | None, peak_rss_bytes: int | None) -> Outcome | None:
        """How the attempt ended, when memory ended it without a word of ours; call it once, when it is over."""
        # Whoever was killed in this group was this trial's, also before anybody has looked.
        own = self._group.memory() if self._group is not None else None
        kills = (own.oom_kills or 0) if own else 0
        if own is not None and kills:
            self._samples.peak_bytes = max(self._samples.peak_bytes, own.peak_bytes or 0)
        elif not self._has_joined and peak_rss_bytes is not None:
            unseen = self._processes.own_part(peak_rss_bytes)
            self._samples.peak_bytes = max(self._samples.peak_bytes, unseen)
        note = self._notes.read(self._pid)
        self._notes.drop(self._pid)
        return Autopsy(
            signum=signum,
            peak_bytes=self.peak_bytes,
            limits=self.limits,
            group_kills=kills,
            node_kills=self._node.oom_kills() - self._node_kills_before,
            note=note,
            was_alone=self._is_alone,
        ).outcome()

    def trace(self) -> MemoryTrace:
        """What is stored with the attempt."""
        return self._samples.trace(self.limits.hard_bytes)

    def _read(self) -> tuple[int, int, int]:
        """(bytes held, of these swapped out, kernel's kills)."""
        if self._group is not None:
            self._has_joined = self._has_joined or self._group.holds(self._pid)
            own = self._group.memory() if self._has_joined else None
            if own is not None:
                return own.used_bytes + own.swap_bytes, own.swap_bytes, own.oom_kills or 0
        used, swapped = self._processes.read(is_swapping=self._is_swapping)
        return used, swapped, 0

    def _look_at_node(self, used_bytes: int, swapped_bytes: int) -> None:
        """Twice a second: the kernel's kills, and swap that grows because of this trial."""
        now = self._clock()
        if now - self._node_at < LOOK_S:
            return
        self._node_at = now
        self._node_kills_before, self._node_kills = self._node_kills, self._node.oom_kills()
        node = self._node.read()
        if node is None:
            return
        sample = MemorySample(
            at_s=now,
            scopes=(),
            process_bytes=used_bytes - swapped_bytes,
            process_swap_bytes=swapped_bytes,
            swap_used_bytes=node.swap_used_bytes,
        )
        self._is_swapping = node.swap_used_bytes > self._node_swap_bytes
        self._node_swap_bytes = node.swap_used_bytes
        if self._swap is None:
            self._swap = SwapWatch(sample)
            return
        is_short = node.used_bytes > _CLOSE_SHARE * node.limit_bytes
        self._swap_spike_bytes = self._swap.spike(sample, is_short=is_short)


class Processes:
    """What the processes of a trial hold by themselves, read as rarely as the answer allows."""

    def __init__(self, pid: int, limits: TrialLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._group = ProcessGroup(pid)
        self._began_at = self._found_at = self._followed_at = clock()
        # Just forked, all that is resident is inherited; what is not is counted until the first exact reading.
        self._foreign = self._group.resident_bytes()
        self._inherited: int | None = None
        self._exact_at = self._began_at
        self._exact_resident = 0
        self._cost_s = 0.0
        self._swapped = 0

    def read(self, *, is_swapping: bool) -> tuple[int, int]:
        """(bytes held, of these swapped out); what was swapped out only page tables tell."""
        now = self._clock()
        if now - self._followed_at >= LOOK_S:
            self._followed_at = now
            self._follow(now)
        resident = self._group.resident_bytes()
        if self._exact_is_worth_it(resident, now, is_swapping):
            self._read_exactly(resident)
        return max(0, resident - self._foreign) + self._swapped, self._swapped

    def own_part(self, peak_rss_bytes: int) -> int:
        """What of the highest RSS of the trial process was its own."""
        return max(0, peak_rss_bytes - self._foreign)

    def kill(self) -> None:
        """SIGKILL to each of them."""
        self._group.find()
        for pid in self._group.pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _follow(self, now: float) -> None:
        if now - self._found_at < _FIND_EVERY_S:
            self._group.follow()
            return
        self._found_at = now
        self._group.find()

    def _exact_is_worth_it(self, resident: int, now: float, is_swapping: bool) -> bool:
        estimate = resident - self._foreign + self._swapped
        if estimate > self._limits.hard_bytes:
            return True
        since_s = now - self._exact_at
        # Pages of the imports that the trial writes to become its own without a change of RSS.
        if resident + self._swapped > self._limits.soft_bytes:
            is_close = estimate > _CLOSE_SHARE * self._limits.soft_bytes
            return since_s >= self._cost_s * (_CLOSE_COST if is_close else _CALM_COST)
        if self._inherited is None:
            return since_s >= _FIRST_AFTER_S
        has_moved = abs(resident - self._exact_resident) > (1 - _CLOSE_SHARE) * self._limits.hard_bytes
        return since_s >= (max(1.0, self._cost_s * _CALM_COST) if has_moved or is_swapping else _CALM_EVERY_S)

    def _read_exactly(self, resident: int) -> None:
        began = self._clock()
        found = self._group.exact()
        self._exact_at = self._clock()
        self._cost_s = self._exact_at - began
        self._exact_resident = resident
        if found is None:
            self._foreign = 0  # too much rather than too little
            return
        # Shared at the first look: with the worker. What comes later is shared with children of its own.
        self._inherited = found.shared_bytes if self._inherited is None else self._inherited
        own = found.private_bytes + max(0, found.shared_bytes - self._inherited)
        self._foreign = max(0, resident - own)
        self._swapped = found.swap_bytes
