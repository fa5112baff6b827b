"""The policy of memory outside a trial: limits of a node's trials, the verdict on a reading, why a trial has ended.

    node      the least of the machine's memory and every cgroup limit of the worker
    reserve   for agent, pool, supervisors and services beside them; no trial may use it
    share     an equal part of the rest for each slot: the default limit, so that whether a trial fits does not depend
              on its neighbours, and the measure of who is responsible when memory runs out

Pure: no clock, no file. `trial_memory` and `node_monitor` read, `trial_monitor` stops and kills.
"""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass

from highnoon.shared.domain.memory_sizes import said
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.trial import MemoryTrace, Outcome
from highnoon.shared.memory.guard import Kind, Verdict
from highnoon.shared.memory.policy import MemoryPolicy, fill_s
from highnoon.workers.monitor.kill_selection import KillRecord

_LEAST_RESERVE_BYTES = 512 << 20
_MOST_RESERVE_BYTES = 4 << 30
_RESERVE_SHARE = 0.1
_MOST_RESERVE_SHARE = 0.25
"""Of a small node: a quarter for ourselves, the rest for trials."""

_MARGIN_SHARE = 1 / 8
"""Of the reserve: what stays free for the kernel. Less than what trials with a guard leave free."""

LOOK_S = 0.5
_SHORTEST_PAUSE_S = 0.05
KEPT_SAMPLES = 20
_AT_THE_LIMIT = 0.98
"""The kernel counts in batches of pages: a group that it kills in may end a little below its limit."""

LEAST_EXCESS = 1e-3
"""A trial that was stopped missed its limit, also where the kernel let it come just up to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLimits:
    """What the trials of a node with this memory and number of slots may hold."""

    node_bytes: int
    slots: int

    @property
    def reserve_bytes(self) -> int:
        """A tenth, from 512 MB to 4 GB, but never more than a quarter."""
        wanted = max(_LEAST_RESERVE_BYTES, min(_MOST_RESERVE_BYTES, int(_RESERVE_SHARE * self.node_bytes)))
        return min(wanted, int(_MOST_RESERVE_SHARE * self.node_bytes))

    @property
    def share_bytes(self) -> int:
        """What each slot may hold without taking from another."""
        return (self.node_bytes - self.reserve_bytes) // self.slots

    @property
    def full_bytes(self) -> int:
        """Above this the node is full, and a trial is killed."""
        return self.node_bytes - int(_MARGIN_SHARE * self.reserve_bytes)

    def limit_bytes(self, wanted_bytes: int | None) -> int:
        """The hard limit of one trial: what its study sets, as far as the node has it; else the share."""
        return self.share_bytes if wanted_bytes is None else min(wanted_bytes, self.node_bytes - self.reserve_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLimits:
    """The limits of one trial: stopped above `soft_bytes`, killed above `hard_bytes`.

    Only what is above `share_bytes` can have harmed a neighbour.
    """

    hard_bytes: int
    soft_bytes: int
    share_bytes: int

    @classmethod
    def of(cls, hard_bytes: int, share_bytes: int, memory_warning_pct: float | None = None) -> TrialLimits:
        """The soft limit is above the ceiling at which the guard inside the trial stops it, half way to the hard."""
        ceiling_bytes = MemoryPolicy.for_limit(hard_bytes, memory_warning_pct).ceiling_bytes(hard_bytes)
        return cls(hard_bytes=hard_bytes, soft_bytes=(ceiling_bytes + hard_bytes) // 2, share_bytes=share_bytes)


def judge(
    used_bytes: int,
    limits: TrialLimits,
    *,
    oom_kills: int = 0,
    peak_bytes: int = 0,
    swap_spike_bytes: int | None = None,
) -> Verdict:
    """The verdict on one reading; the most severe reason counts.

    `used_bytes` is what the trial alone holds, resident and swapped, and `peak_bytes` the most that it held;
    `oom_kills` are the kernel's, as the trial's own cgroup counts them, also where a limit above it was met.
    """
    too_much = f"it held {said(used_bytes)}, the limit of one trial is {said(limits.hard_bytes)}"
    if oom_kills:
        cause, reason = _kernels_reason(max(used_bytes, peak_bytes), limits, oom_kills)
        return Verdict(kind=Kind.KILL, cause=cause, reason=reason)
    if used_bytes > limits.hard_bytes:
        return Verdict(kind=Kind.KILL, cause=Cause.MEMORY_LIMIT, reason=too_much)
    if swap_spike_bytes is not None:
        reason = f"swap_spike:{swap_spike_bytes >> 20}MB (seen from outside)"
        return Verdict(kind=Kind.KILL, cause=Cause.SWAP, reason=reason)
    if used_bytes > limits.soft_bytes:
        return Verdict(kind=Kind.STOP, cause=Cause.MEMORY_LIMIT, reason=too_much)
    return Verdict(kind=Kind.OK)


def pause_s(headroom_bytes: int, growth_bytes_per_s: float = 0.0) -> float:
    """Until the next reading: half of the time in which the rest could be filled, at most half a second."""
    return min(LOOK_S, max(_SHORTEST_PAUSE_S, fill_s(headroom_bytes, growth_bytes_per_s) / 2))


class TraceRecorder:
    """The last readings, one per LOOK_S at any pace, always the newest; and the peak of all."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, int]] = deque(maxlen=KEPT_SAMPLES)
        self.peak_bytes = 0

    def add(self, at_s: float, used_bytes: int) -> None:
        """Keeps the newest reading; `at_s` is since the trial began."""
        self.peak_bytes = max(self.peak_bytes, used_bytes)
        if len(self._kept) > 1 and at_s - self._kept[-2][0] < LOOK_S:
            self._kept.pop()
        self._kept.append((round(at_s, 3), used_bytes))

    @property
    def has_samples(self) -> bool:
        """False before the first reading."""
        return bool(self._kept)

    def trace(self, limit_bytes: int) -> MemoryTrace:
        """What is stored with the attempt."""
        return MemoryTrace(peak_bytes=self.peak_bytes, limit_bytes=limit_bytes, samples=tuple(self._kept))


def explain_end(
    signum: int | None,
    peak_bytes: int,
    limits: TrialLimits,
    *,
    group_kills: int = 0,
    node_kills: int = 0,
    record: KillRecord | None = None,
    was_alone: bool = False,
) -> Outcome | None:
    """How the attempt ended, if memory ended it and no verdict of ours did; None otherwise.

    `group_kills` are the kernel's kills in the trial's own cgroup, `node_kills` those anywhere on the node since the
    last reading; `record` is the agent's, when it has killed the trial because the node was full.
    """

    is_killed = signum == signal.SIGKILL
    if is_killed and record is not None and not _is_at_the_limit(peak_bytes, limits, group_kills):
        cause, message = record.cause, record.message
    elif group_kills or (is_killed and node_kills):
        cause, reason = _kernels_reason(peak_bytes, limits, group_kills)
        message = f"{cause}: {reason}"
    else:
        return None
    return ended(cause, message, peak_bytes=peak_bytes, limit_bytes=limits.hard_bytes, was_alone=was_alone)


def ended(cause: str, message: str, *, peak_bytes: int, limit_bytes: int, was_alone: bool) -> Outcome:
    """The outcome of a trial that memory ended; one that did not fit has the excess as the sampler's constraint.

    A trial that a neighbour pushed out is tried again, alone; what does not fit alone does not fit.
    """
    if cause == Cause.OOM_NEIGHBOUR and not was_alone:
        return Outcome(ending=Ending.KILLED, cause=cause, message=message)
    constraint = max(peak_bytes / limit_bytes - 1, LEAST_EXCESS)
    return Outcome(ending=Ending.STOPPED, cause=cause, message=message, constraint=constraint)


def _is_at_the_limit(peak_bytes: int, limits: TrialLimits, group_kills: int) -> bool:
    return group_kills > 0 and peak_bytes >= _AT_THE_LIMIT * limits.hard_bytes


def _kernels_reason(peak_bytes: int, limits: TrialLimits, group_kills: int) -> tuple[Cause, str]:
    """Cause and reason of the kernel's kill: at the limit of the trial's own group, else where the node ran out."""
    if _is_at_the_limit(peak_bytes, limits, group_kills):
        return Cause.OOM_KERNEL, f"the kernel killed a process of it at its limit of {said(limits.hard_bytes)}"
    held = f"its peak was {said(peak_bytes)}, its share of the node is {said(limits.share_bytes)}"
    cause = Cause.OOM_KERNEL if peak_bytes > limits.share_bytes else Cause.OOM_NEIGHBOUR
    return cause, f"the kernel killed it, {held}"
