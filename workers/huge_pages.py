"""Few large pages instead of many small ones for the memory that all trials inherit.

A fork copies one entry for each page of its parent, and the child's end walks them all again: beside TensorFlow's
imports that was most of the price of a process per trial, and large pages (2 MB) halve it. They stay shared as small
ones do; whoever writes into one copies 4 kB of it. Owns the request to the kernel, which may refuse: then forks cost
more, and that is all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

LARGE_BYTES = 2 << 20
"""The size on x86-64 and on 64-bit ARM with pages of 4 kB; elsewhere the kernel refuses the request."""

_COLLAPSE = 25
"""MADV_COLLAPSE, Linux 6.1; does not depend on what the machine's settings want of large pages."""


def gather(maps: Path = Path("/proc/self/maps")) -> int:
    """Asks for large pages wherever this process's own memory fills one. Returns how many bytes lie in such now."""
    libc = ctypes.CDLL(None, use_errno=True)
    gathered = 0
    for start in _large_ranges(maps.read_text()):
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(LARGE_BYTES), _COLLAPSE) == 0:
            gathered += LARGE_BYTES
    return gathered


def _large_ranges(maps: str) -> Iterator[int]:
    """Where an aligned large page fits into a private, writable mapping of no file."""
    for line in maps.splitlines():
        span, access, _, _, inode, *name = line.split(maxsplit=5)
        if inode != "0" or access != "rw-p" or (name and name[0].strip() not in ("", "[heap]")):
            continue
        low, high = (int(address, 16) for address in span.split("-"))
        first = -(-low // LARGE_BYTES) * LARGE_BYTES
        yield from range(first, high - LARGE_BYTES + 1, LARGE_BYTES)
