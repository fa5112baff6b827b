"""What a study says about memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryWishes:
    """What a study says about memory; what is None comes from the guide's table for this machine.

    `trial_memory_limit`, in bytes, is what this trial may hold on this machine: a worker puts in what counts there.
    """

    memory_warning_pct: float | None = None
    memory_grace_steps: int | None = None
    prefetch_buffer_size: int | None = None
    trial_memory_limit: int | None = None


NO_WISHES = MemoryWishes()
