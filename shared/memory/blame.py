"""Whether pressure is this trial's doing. A trial is never stopped for what its neighbour takes."""

from __future__ import annotations

from collections.abc import Sequence

from highnoon.shared.memory.sample import MemorySample, Scope
from highnoon.shared.memory.trend import HORIZON_S, slope

_MOST = 0.5
"""Who holds half of a limit is answerable for it, whoever else grows."""

_MATTERS = 0.1
"""Who holds less gives too little back to help, be it the largest in sight: other tenants may be out of sight."""

_GROWTH_SHARE = 0.5
"""Growth that would take half of what is left within the horizon is what the pressure comes from."""

_NOISE_BYTES = 16 << 20
"""Python and its allocator breathe by some megabytes."""


def is_responsible(history: Sequence[MemorySample], scope: Scope) -> bool:
    """True when the trial fills the scope alone, holds most of it, is the largest that matters, or grows."""
    now = history[-1]
    if scope.is_own or now.process_bytes >= _MOST * scope.limit_bytes:
        return True
    if now.is_largest and now.process_bytes >= _MATTERS * scope.limit_bytes:
        return True
    return _grows(history, scope.free_bytes)


def _grows(history: Sequence[MemorySample], free_bytes: int) -> bool:
    if history[-1].process_bytes - history[0].process_bytes < _NOISE_BYTES:
        return False
    growth = slope([(sample.at_s, sample.process_bytes) for sample in history])
    return growth > 0 and growth * HORIZON_S >= _GROWTH_SHARE * free_bytes
