"""The watchdog's judgement: samples of one trial's memory in; go on, ask or kill out. Pure: no clock, no file.

Also says, of a trial that died by SIGKILL, whether memory was the reason and whose. Reading is `trial_memory`'s,
asking and killing `watch`'s.
"""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass

from highnoon.shared.domain.byte_sizes import said
from highnoon.shared.domain.lease import OOM_NEIGHBOUR
from highnoon.shared.domain.states import Ending, StrEnum
from highnoon.shared.domain.trial import MemoryTrace, Outcome
from highnoon.workers.monitor.kill_selection import KillNote
from highnoon.workers.monitor.memory_limits import TrialLimits

LOOK_S = 0.5
_QUICKEST_LOOK_S = 0.05
_FASTEST_FILL_BYTES_PER_S = 2 << 30
"""One thread can touch about this much new memory; more only where growth has shown it."""

KEPT_SAMPLES = 20
_AT_THE_LIMIT = 0.98
"""The kernel counts in batches of pages: a group that it kills in may end a little below its limit."""


class Action(StrEnum):
    """What a look at the memory asks for."""

    GO_ON = "go_on"
    ASK = "ask"
    """Stop at the next report."""
    KILL = "kill"
    """End everything now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a trial: seconds since it began, bytes that it alone holds (resident and swapped).

    `oom_kills` is how many of its processes the kernel killed for memory, as its own cgroup counts them.
    """

    at_s: float
    used_bytes: int
    oom_kills: int = 0
    swap_spike_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`cause` and `message` explain anything but GO_ON; the message begins with the cause, as a guard's does."""

    action: Action
    cause: str = ""
    message: str = ""


GO_ON = Verdict(action=Action.GO_ON)


def judge(look: Look, limits: TrialLimits) -> Verdict:
    """What this look asks for; the most severe reason speaks."""
    if look.oom_kills:
        return Verdict(action=Action.KILL, cause="oom_kernel", message=_kernel_killed(limits.hard_bytes))
    if look.used_bytes > limits.hard_bytes:
        return Verdict(action=Action.KILL, cause="memory_limit", message=over_limit(look.used_bytes, limits.hard_bytes))
    if look.swap_spike_bytes is not None:
        message = f"swap: swap_spike:{look.swap_spike_bytes >> 20}MB (seen from outside)"
        return Verdict(action=Action.KILL, cause="swap", message=message)
    if look.used_bytes > limits.soft_bytes:
        message = over_limit(look.used_bytes, limits.hard_bytes)
        return Verdict(action=Action.ASK, cause="memory_limit", message=message)
    return GO_ON


def over_limit(used_bytes: int, limit_bytes: int) -> str:
    """The message of a trial that held too much."""
    return f"memory_limit: it held {said(used_bytes)}, the limit of one trial is {said(limit_bytes)}"


def pause_s(headroom_bytes: int, growth_bytes_per_s: float) -> float:
    """How long nobody need look: half of the time in which the rest could be filled, at most half a second."""
    pace = max(_FASTEST_FILL_BYTES_PER_S, 2.0 * growth_bytes_per_s)
    return min(LOOK_S, max(_QUICKEST_LOOK_S, headroom_bytes / pace / 2))


class Samples:
    """The last looks, one per LOOK_S however often one looks, the newest always; and the peak of all."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, int]] = deque(maxlen=KEPT_SAMPLES)
        self.peak_bytes = 0

    def add(self, look: Look) -> None:
        """Takes the newest look."""
        self.peak_bytes = max(self.peak_bytes, look.used_bytes)
        if len(self._kept) > 1 and look.at_s - self._kept[-2][0] < LOOK_S:
            self._kept.pop()
        self._kept.append((round(look.at_s, 3), look.used_bytes))

    def trace(self, limit_bytes: int) -> MemoryTrace:
        """What is stored with the attempt."""
        return MemoryTrace(peak_bytes=self.peak_bytes, limit_bytes=limit_bytes, samples=tuple(self._kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class Autopsy:
    """What is known of a trial when it is over.

    `group_kills` are the kernel's kills in the trial's own cgroup; `node_kills` those anywhere on the node since the
    last look; `note` is the agent's, when it has killed the trial for the node's sake.
    """

    signum: int | None
    peak_bytes: int
    limits: TrialLimits
    group_kills: int = 0
    node_kills: int = 0
    note: KillNote | None = None
    was_alone: bool = False

    def outcome(self) -> Outcome | None:
        """How the attempt ended, if memory ended it and nobody has judged that yet."""
        if self.group_kills and self.peak_bytes >= _AT_THE_LIMIT * self.limits.hard_bytes:
            return self._stopped("oom_kernel", _kernel_killed(self.limits.hard_bytes))
        if self.signum != signal.SIGKILL:
            return None
        if self.note is not None:
            return self._at_a_full_node(self.note.cause, self.note.message)
        if not self.group_kills and not self.node_kills:
            return None
        if self.peak_bytes > self.limits.share_bytes:
            return self._stopped("oom_kernel", f"oom_kernel: the kernel killed it, {self._held()}")
        return self._at_a_full_node(OOM_NEIGHBOUR, f"oom_neighbour: the kernel killed it, {self._held()}")

    def _at_a_full_node(self, cause: str, message: str) -> Outcome:
        """A trial that a neighbour pushed out is tried again, alone; what does not fit alone does not fit."""
        if cause == OOM_NEIGHBOUR and not self.was_alone:
            return Outcome(ending=Ending.KILLED, cause=cause, message=message)
        return self._stopped(cause, message)

    def _stopped(self, cause: str, message: str) -> Outcome:
        return stopped(cause, message, peak_bytes=self.peak_bytes, limit_bytes=self.limits.hard_bytes)

    def _held(self) -> str:
        return f"its peak was {said(self.peak_bytes)}, its share of the node is {said(self.limits.share_bytes)}"


def stopped(cause: str, message: str, *, peak_bytes: int, limit_bytes: int) -> Outcome:
    """The outcome of a trial that did not fit, with the excess that the sampler is told."""
    constraint = peak_bytes / limit_bytes - 1
    return Outcome(ending=Ending.STOPPED, cause=cause, message=message, constraint=max(constraint, LEAST_EXCESS))


LEAST_EXCESS = 1e-3
"""A trial that was stopped missed its limit, also where the kernel let it come just up to it."""


def _kernel_killed(limit_bytes: int) -> str:
    return f"oom_kernel: the kernel killed a process of it at its limit of {said(limit_bytes)}"
