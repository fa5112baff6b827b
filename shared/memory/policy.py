"""Where the guard warns, where it stops, and what of that a person may set. Owns the guide's table of machines."""

from __future__ import annotations

import math
from dataclasses import dataclass

from highnoon.shared.domain.errors import InvalidInput, Problem

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class _Row:
    """What the guide recommends from this much memory on; a prefetch of None leaves it to tf.data."""

    nominal_gb: int
    warning_fraction: float
    grace_steps: int
    prefetch: int | None


_ROWS = (
    _Row(8, 0.85, 5, 1),
    _Row(16, 0.90, 8, 2),
    _Row(32, 0.95, 10, None),
    _Row(64, 0.95, 15, None),
    _Row(128, 0.98, 20, None),
)
_UNKNOWN = _ROWS[2]
"""The guide's general defaults: for a machine that does not tell its memory."""

_NOMINAL_SHARE = 0.9
"""Firmware and kernel keep some: a "16 GB" machine reports 15.6 GiB and is to have the row of 16."""

_LEAST_FREE_BYTES = 512 << 20
"""One large allocation of a training step; a threshold that leaves less is reached and passed between two checks."""

_LEAST_FREE_SHARE = 0.1
"""... but not more than this of a small limit, or a 1 GB container would be half closed."""

_MOST_FREE_BYTES = 16 * GIB
"""Memory that a fraction of a very large machine leaves idle beyond this only costs trials."""

_CEILING_SHARE = 0.8
"""The hard ceiling lies four fifths of the way from the threshold to the limit (99 % for 95 %): one fifth is what the
kernel needs to go on reclaiming, and the stop itself."""

_MARGIN = 0.02
"""Pressure ends this much of the limit below the threshold, so that usage that wavers around it is one episode."""

_CLOSE = 0.1
"""From this much of the limit below the threshold on, memory is looked at often: it may go fast from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPolicy:
    """The guard's settings for one trial. `limit_bytes` is the least limit that holds for it, None when unknown."""

    limit_bytes: int | None
    warning_fraction: float
    grace_steps: int
    prefetch_buffer_size: int | None
    is_fraction_explicit: bool = False

    @classmethod
    def for_limit(
        cls,
        limit_bytes: int | None,
        memory_warning_pct: float | None = None,
        memory_grace_steps: int | None = None,
        prefetch_buffer_size: int | None = None,
    ) -> MemoryPolicy:
        """What a person set, else the guide's row for this limit. Raises InvalidInput with every mistake at once."""
        check_settings("memory settings", memory_warning_pct, memory_grace_steps, prefetch_buffer_size)
        row = _row_for(limit_bytes)
        return cls(
            limit_bytes=limit_bytes,
            warning_fraction=row.warning_fraction if memory_warning_pct is None else float(memory_warning_pct),
            grace_steps=memory_grace_steps or row.grace_steps,
            prefetch_buffer_size=prefetch_buffer_size or row.prefetch,
            is_fraction_explicit=memory_warning_pct is not None,
        )

    def threshold_bytes(self, limit_bytes: int) -> int:
        """Where warnings begin: the fraction, kept between too little and, unless a person set it, too much free."""
        threshold = self.warning_fraction * limit_bytes
        if not self.is_fraction_explicit:
            threshold = max(threshold, limit_bytes - _MOST_FREE_BYTES)
        return int(min(threshold, limit_bytes - min(_LEAST_FREE_BYTES, _LEAST_FREE_SHARE * limit_bytes)))

    def calm_bytes(self, limit_bytes: int) -> int:
        """Where an episode ends."""
        return int(self.threshold_bytes(limit_bytes) - _MARGIN * limit_bytes)

    def close_bytes(self, limit_bytes: int) -> int:
        """Where it is worth looking often."""
        return int(self.threshold_bytes(limit_bytes) - _CLOSE * limit_bytes)

    def ceiling_bytes(self, limit_bytes: int) -> int:
        """Where no trend and no grace excuse any longer."""
        threshold = self.threshold_bytes(limit_bytes)
        return int(threshold + _CEILING_SHARE * (limit_bytes - threshold))


def check_settings(
    source: str,
    memory_warning_pct: object = None,
    memory_grace_steps: object = None,
    prefetch_buffer_size: object = None,
    trial_memory_limit: object = None,
) -> None:
    """Raises InvalidInput with every mistake at once; None is never one."""
    problems = [
        *_fraction_problems(memory_warning_pct),
        *_count_problems("memory_grace_steps", memory_grace_steps),
        *_count_problems("prefetch_buffer_size", prefetch_buffer_size),
        *_count_problems("trial_memory_limit", trial_memory_limit, unit="of bytes"),
    ]
    if problems:
        raise InvalidInput(source, problems)


def _row_for(limit_bytes: int | None) -> _Row:
    """The last row that the limit reaches; the first for anything smaller."""
    if limit_bytes is None:
        return _UNKNOWN
    reached = [row for row in _ROWS if limit_bytes >= _NOMINAL_SHARE * row.nominal_gb * GIB]
    return reached[-1] if reached else _ROWS[0]


def _fraction_problems(fraction: object) -> list[Problem]:
    if fraction is None:
        return []
    key, message = "memory_warning_pct", "must be a fraction between 0 and 1"
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not math.isfinite(fraction):
        return [Problem(key=key, message=message, value=fraction)]
    if 0 < fraction <= 1:
        return []
    hint = f"Write {fraction / 100:g}." if 1 < fraction <= 100 else ""
    return [Problem(key=key, message=message, value=fraction, hint=hint)]


def _count_problems(key: str, count: object, unit: str = "") -> list[Problem]:
    if count is None or (isinstance(count, int) and not isinstance(count, bool) and count >= 1):
        return []
    number = f"number {unit}".rstrip()
    return [Problem(key=key, message=f"must be a whole {number}, at least 1", value=count)]
