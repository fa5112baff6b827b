"""What a study asks of memory, and sizes as people write them: a number of bytes, or "2 GB", "512MB", "1.5 GiB"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from highnoon.shared.domain.errors import Problem

LEAST_MEMORY_BYTES = 16 << 20
"""A Python process that has imported nothing holds about this much: a smaller size was meant in another unit."""
MOST_MEMORY_BYTES = 1 << 60

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_WRITTEN = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_NEARLY = re.compile(r"\D*(\d{1,20}(?:[.,]\d{1,20})?)\s*([kmgt]?)", re.IGNORECASE)


def bytes_of(written: object) -> int | None:
    """The size in whole bytes, None for what is no size. GB is 10^9 bytes, GiB 2^30; without a unit it is bytes."""
    if isinstance(written, int) and not isinstance(written, bool):
        return written
    found = _WRITTEN.fullmatch(written.strip()) if isinstance(written, str) else None
    if found is None:
        return None
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[prefix.lower()])


def memory_limit(written: object) -> int | None:
    """The bytes of a limit for one trial; None for what is no size, or one in which no trial could run."""
    size = bytes_of(written)
    return size if size is not None and LEAST_MEMORY_BYTES <= size <= MOST_MEMORY_BYTES else None


def memory_limit_problem(written: object) -> Problem:
    """What is wrong with what `memory_limit` refuses."""
    hint = f'Write for example "{nearest_size(written, least_bytes=LEAST_MEMORY_BYTES)}".'
    message = 'must be a size of memory like "2 GB" or a number of bytes, at least 16 MiB'
    return Problem(key="trial_memory_limit", message=message, value=written, hint=hint)


def warning_fraction_problem(written: object) -> Problem | None:
    """What is wrong with a threshold for warnings; None where it is a fraction or not set."""
    number = written if isinstance(written, int | float) and not isinstance(written, bool) else 0.0
    if written is None or 0 < number <= 1:
        return None
    hint = f"Write {number / 100:g}." if 1 < number <= 100 else ""
    return Problem(key="memory_warning_pct", message="must be a fraction between 0 and 1", value=written, hint=hint)


def nearest_size(written: object, *, least_bytes: int) -> str:
    """What was probably meant, as a person would write it; "2 GB" when it cannot be guessed.

    No trial can run in less than `least_bytes`: a smaller number was meant in GB.
    """
    found = _NEARLY.match(str(written))
    if found is None or not float(found[1].replace(",", ".")):
        return "2 GB"
    number, prefix = found[1].replace(",", "."), found[2].upper()
    meant = f"{number} {prefix}B".replace(" B", " GB")
    size = bytes_of(meant)
    return meant if size is not None and size >= least_bytes else f"{number} GB"


def said(size_bytes: float) -> str:
    """For a message: `1.5 GiB`, `300 MiB`."""
    mebibytes = size_bytes / (1 << 20)
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryWishes:
    """What a study asks of memory; what is None comes from the guide's table for this machine.

    `trial_memory_limit`, in bytes, is what this trial may hold on this machine: a worker puts in what counts there.
    """

    memory_warning_pct: float | None = None
    memory_grace_steps: int | None = None
    prefetch_buffer_size: int | None = None
    trial_memory_limit: int | None = None


NO_WISHES = MemoryWishes()
