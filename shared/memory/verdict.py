"""What the guard says of one sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from highnoon.shared.domain.states import StrEnum
from highnoon.shared.memory.trend import Trend


class Kind(IntEnum):
    """From mild to severe: a larger one always outweighs a smaller one."""

    OK = 0
    WARN = 1
    EASE = 2
    STOP = 3


class Easing(StrEnum):
    """What may help before a stop must, in this order."""

    GC = "gc"
    """Collect garbage and hand freed pages back to the kernel."""
    SMALLER_PREFETCH = "smaller_prefetch"
    """Let the input pipeline hold fewer batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`kind` decides; the rest says why. Above the threshold `count` of `grace` steps are used up."""

    kind: Kind
    usage: float = 0.0
    process_bytes: int = 0
    trend: Trend = Trend.STABLE
    count: int = 0
    grace: int = 0
    is_normalized: bool = False
    """An episode has just ended; only with OK."""
    easing: Easing | None = None
    reason: str = ""
    """Only with STOP: a name, a colon and a number with its unit, as `sustained_high_memory_rising:96.2%`."""
    is_own: bool = True
    """False when somebody else's stop might do as well."""
    peak_bytes: int = 0
    limit_bytes: int = 0
    swap_used_bytes: int = 0

    def as_warning(self) -> Verdict:
        """A stop that is put off, since another trial has just stopped for the same pressure."""
        return replace(self, kind=Kind.WARN, reason="")

    @property
    def cause(self) -> str:
        """The class of a stop, for machines: `swap` or `memory_guard`."""
        return "swap" if self.reason.startswith("swap_") else "memory_guard"

    @property
    def excess(self) -> float:
        """By how much the peak was above the limit, as a share of it; below 0 when the stop came in time."""
        return self.peak_bytes / self.limit_bytes - 1 if self.limit_bytes else 0.0
