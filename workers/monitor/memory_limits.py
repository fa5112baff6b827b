"""How much memory of a node one trial may hold. Pure arithmetic over what the node has; reads nothing.

node      the least of the machine's memory and every cgroup limit of the worker
reserve   for agent, pool, supervisors and services beside them; no trial may plan with it
share     an equal part of the rest for each slot: the default limit, so that a trial fits or not whoever its
          neighbours are, and the measure of who is to blame when memory runs out
"""

from __future__ import annotations

from dataclasses import dataclass

from highnoon.shared.memory.policy import MemoryPolicy

_LEAST_RESERVE_BYTES = 512 << 20
_MOST_RESERVE_BYTES = 4 << 30
_RESERVE_SHARE = 0.1
_MOST_RESERVE_SHARE = 0.25
"""Of a small node: a quarter for ourselves, the rest is the trials'."""

_MARGIN_SHARE = 1 / 8
"""Of the reserve: what stays free for the kernel. Less than what trials with a guard leave free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What the trials of a node with this memory and as many slots are allowed."""

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
        """Above this the node is full, and a trial must go."""
        return self.node_bytes - int(_MARGIN_SHARE * self.reserve_bytes)

    def limit_bytes(self, asked_bytes: int | None) -> int:
        """The hard limit of one trial: what its study asks for, as far as the node has it; else the share."""
        return self.share_bytes if asked_bytes is None else min(asked_bytes, self.node_bytes - self.reserve_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLimits:
    """The limits of one trial: asked to stop above `soft_bytes`, killed above `hard_bytes`.

    Only what is above `share_bytes` can have harmed a neighbour.
    """

    hard_bytes: int
    soft_bytes: int
    share_bytes: int

    @classmethod
    def of(cls, hard_bytes: int, share_bytes: int, memory_warning_pct: float | None = None) -> TrialLimits:
        """The soft limit lies above the ceiling at which the guard inside the trial stops it, half way to the hard."""
        ceiling_bytes = MemoryPolicy.for_limit(hard_bytes, memory_warning_pct).ceiling_bytes(hard_bytes)
        return cls(hard_bytes=hard_bytes, soft_bytes=(ceiling_bytes + hard_bytes) // 2, share_bytes=share_bytes)
