"""The memory of one running trial, read from its supervisor: how much, how often to read, and the trace of it.

With a cgroup of its own two short files are enough. Without one processes are read: RSS is cheap and counts too much
(the warm imports that every trial of a node shares), page tables are exact and expensive; so the cheap reading decides
when the exact one is worth it, and only the exact one is judged. `memory_policy` judges.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from highnoon.shared.domain.trial import MemoryTrace, Outcome
from highnoon.shared.memory.cgroup import CgroupMemory
from highnoon.shared.memory.guard import Verdict
from highnoon.shared.memory.policy import SwapMonitor
from highnoon.shared.memory.poller import ExactSchedule, MemoryPoller
from highnoon.shared.memory.process_memory import ProcessTree, TreeMemory
from highnoon.workers.monitor.kill_selection import KillRecords
from highnoon.workers.monitor.memory_policy import (
    LOOK_S,
    TraceRecorder,
    TrialLimits,
    ended,
    explain_end,
    judge,
    pause_s,
)
from highnoon.workers.monitor.trial_cgroups import TrialGroup

_CLOSE_SHARE = 0.9
"""From this much of the soft limit on an exact reading may take a tenth of the time, before it a fiftieth."""

_CLOSE_COST, _CALM_COST = 10.0, 50.0
_CALM_EVERY_S = 10.0
_FIND_EVERY_S = 10.0
"""Orphans are only found by a pass over all processes of the machine."""

_FIRST_AFTER_S = 1.0
"""Most short trials are over before their memory is worth an exact reading."""


class TrialMemory:
    """One attempt's memory, from its launch to its end. Never raises.

    `node` reads the machine around it, `group` is the trial's own cgroup, where it has one.
    """

    def __init__(
        self,
        pid: int,
        limits: TrialLimits,
        node: MemoryPoller,
        records: KillRecords,
        *,
        group: TrialGroup | None = None,
        is_alone: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        records.drop(pid)
        self.limits = limits
        self._pid = pid
        self._node = node
        self._records = records
        self._group = group
        self._has_joined = False
        self._is_alone = is_alone
        self._clock = clock
        self._recorder = TraceRecorder()
        self._processes = _Processes(pid, limits, clock)
        self._began_at = self._node_at = clock()
        self._due_at = self._began_at + pause_s(limits.hard_bytes)
        self._last_at_s, self._last_bytes = 0.0, 0
        self._node_kills = self._node_kills_before = node.oom_kills() or 0
        self._swap: SwapMonitor | None = None
        self._node_swap_bytes = 0
        self._is_swapping = False
        self._swap_spike_bytes: int | None = None

    def due_in_s(self) -> float:
        """Seconds until the next reading is due."""
        return max(0.0, self._due_at - self._clock())

    def look(self) -> Verdict:
        """Reads and judges now."""
        at_s = self._clock() - self._began_at
        used, swapped, own = self._read()
        self._read_node(used, swapped)
        growth = (used - self._last_bytes) / max(0.001, at_s - self._last_at_s)
        self._recorder.add(at_s, used)
        self._last_at_s, self._last_bytes = at_s, used
        self._due_at = self._clock() + pause_s(self.limits.hard_bytes - used, growth)
        kills = self._kills_of(own)
        return judge(
            used,
            self.limits,
            oom_kills=kills,
            peak_bytes=self.peak_bytes,
            swap_spike_bytes=self._swap_spike_bytes,
        )

    def ended_by(self, verdict: Verdict) -> Outcome:
        """The outcome of a trial that a verdict of `look` has ended."""
        return ended(
            verdict.cause,
            verdict.message,
            peak_bytes=self.peak_bytes,
            limit_bytes=self.limits.hard_bytes,
            was_alone=self._is_alone,
        )

    def kill(self) -> None:
        """Ends the trial with all its descendants, also those that have left its process group."""
        self._processes.kill()

    @property
    def held_bytes(self) -> int | None:
        """What the newest reading found; None before the first one."""
        return self._last_bytes or None

    @property
    def peak_bytes(self) -> int:
        """The most that was read, or that the kernel counted up to the limit at which it killed."""
        return self._recorder.peak_bytes

    def explain(self, signum: int | None, peak_rss_bytes: int | None) -> Outcome | None:
        """How the attempt ended, when memory ended it and no verdict of ours; call it once, when it is over."""
        # A process that was killed in this group was this trial's, also before the first reading.
        own = self._group.memory() if self._group is not None else None
        kills = self._kills_of(own)
        if not self._has_joined and peak_rss_bytes is not None:
            self._recorder.peak_bytes = max(self.peak_bytes, self._processes.own_part(peak_rss_bytes))
        if kills and not self._recorder.has_samples:
            # It was killed before the first reading came.
            self._recorder.add(self._clock() - self._began_at, self.peak_bytes)
        record = self._records.read(self._pid)
        self._records.drop(self._pid)
        node_kills = (self._node.oom_kills() or 0) - self._node_kills_before
        return explain_end(
            signum,
            self.peak_bytes,
            self.limits,
            group_kills=kills,
            node_kills=node_kills,
            record=record,
            was_alone=self._is_alone,
        )

    def trace(self) -> MemoryTrace:
        """What is stored with the attempt."""
        return self._recorder.trace(self.limits.hard_bytes)

    def _kills_of(self, own: CgroupMemory | None) -> int:
        """The kernel's kills in the trial's group; adds the group's peak where they were at its own limit.

        Up to there the kernel drops all page cache; before a kill at a limit above, the peak may have been such.
        """
        if own is None or not own.oom_kills:
            return 0
        if own.has_run_out:
            self._recorder.peak_bytes = max(self.peak_bytes, own.peak_bytes or 0)
        return own.oom_kills

    def _read(self) -> tuple[int, int, CgroupMemory | None]:
        """(bytes held, of these swapped out, the trial's group where it has joined one)."""
        if self._group is not None:
            self._has_joined = self._has_joined or self._group.holds(self._pid)
            own = self._group.memory() if self._has_joined else None
            if own is not None:
                return own.used_bytes + own.swap_bytes, own.swap_bytes, own
        return (*self._processes.read(is_swapping=self._is_swapping), None)

    def _read_node(self, used_bytes: int, swapped_bytes: int) -> None:
        """Twice a second: the kernel's kills, and swap that grows because of this trial."""
        now = self._clock()
        if now - self._node_at < LOOK_S:
            return
        self._node_at = now
        self._node_kills_before, self._node_kills = self._node_kills, self._node.oom_kills() or 0
        node = self._node.node()
        if node.tightest is None:
            return
        is_short = node.tightest.usage > _CLOSE_SHARE
        own = used_bytes - swapped_bytes
        sample = replace(node, at_s=now, process_bytes=own, process_swap_bytes=swapped_bytes)
        self._is_swapping = sample.swap_used_bytes > self._node_swap_bytes
        self._node_swap_bytes = sample.swap_used_bytes
        if self._swap is None:
            self._swap = SwapMonitor(sample)
            return
        self._swap_spike_bytes = self._swap.spike(sample, is_short=is_short)


class _Processes:
    """What the processes of a trial hold alone, read exactly as rarely as the answer allows."""

    def __init__(self, pid: int, limits: TrialLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._tree = ProcessTree(pid)
        self._found_at = self._followed_at = clock()
        self._inherited: int | None = None
        self._foreign = self._tree.estimate().resident_bytes
        self._schedule = ExactSchedule(clock, moved_by=1 - _CLOSE_SHARE)

    def read(self, *, is_swapping: bool) -> tuple[int, int]:
        """(bytes held, of these swapped out); only page tables show what was swapped out."""
        now = self._clock()
        if now - self._followed_at >= LOOK_S:
            self._followed_at = now
            if now - self._found_at < _FIND_EVERY_S:
                self._tree.follow()
            else:
                self._found_at = now
                self._tree.find()
        memory = self._tree.estimate()
        if self._is_exact_worth_it(memory, is_swapping):
            began_at = self._clock()
            memory = self._tree.exact() or memory
            self._schedule.done(began_at, memory.resident_bytes)
            # The imports of the worker. What is shared beyond that is shared with children of its own.
            self._inherited = self._tree.inherited_bytes() if self._inherited is None else self._inherited
        own = self._own(memory)
        self._foreign = max(0, memory.resident_bytes - own)
        return own + memory.swap_bytes, memory.swap_bytes

    def own_part(self, peak_rss_bytes: int) -> int:
        """What of the highest RSS of the trial process was its own."""
        return max(0, peak_rss_bytes - self._foreign)

    def kill(self) -> None:
        """SIGKILL to each of them."""
        self._tree.find()
        for pid in self._tree.pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _own(self, memory: TreeMemory) -> int:
        return memory.private_bytes + max(0, memory.shared_bytes - (self._inherited or 0))

    def _is_exact_worth_it(self, memory: TreeMemory, is_swapping: bool) -> bool:
        limits, schedule = self._limits, self._schedule
        estimate = self._own(memory) + memory.swap_bytes
        if estimate > limits.hard_bytes:
            return True
        # Pages of the imports that the trial writes to become its own without a change of RSS.
        if memory.resident_bytes + memory.swap_bytes > limits.soft_bytes:
            is_close = estimate > _CLOSE_SHARE * limits.soft_bytes
            return schedule.is_over(schedule.cost_s * (_CLOSE_COST if is_close else _CALM_COST))
        if self._inherited is None:
            return schedule.is_over(_FIRST_AFTER_S)
        has_moved = is_swapping or schedule.has_moved(memory.resident_bytes, limits.hard_bytes)
        return schedule.is_over(max(1.0, schedule.cost_s * _CALM_COST) if has_moved else _CALM_EVERY_S)
