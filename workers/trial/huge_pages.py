"""Few large pages instead of many small ones for the memory that all trials inherit.

A fork copies one entry for each page of its parent, and the child's end visits them all again: beside TensorFlow's
imports that was most of the cost of a process per trial, and large pages (2 MB) halve it. They stay shared as small
ones do; a write into one copies 4 kB of it. Owns the request to the kernel. Where that refuses, forks only cost more.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LARGE_BYTES = 2 << 20
"""The size on x86-64 and on 64-bit ARM with pages of 4 kB; elsewhere the kernel refuses the request."""

_ROOM_BYTES = 200 << 20
"""A little more than the Python objects of TensorFlow's and Keras' imports take."""

_ARENA_BYTES = 1 << 20
"""Python asks the kernel for memory for small objects in pieces of this size, and gives one back when it is empty."""

_BLOCK_BYTES = 448
"""Of an object in such a piece; those over 512 bytes are elsewhere."""

_COLLAPSE = 25
"""MADV_COLLAPSE, Linux 6.1; does not depend on the machine's setting for large pages."""


@contextmanager
def room_for_objects() -> Iterator[None]:
    """Keeps the Python objects made within it side by side.

    Each library that is imported is mapped between the pieces of memory that Python has for its objects, and most of
    those are smaller than a large page. Here the pieces are taken before the imports; what stays empty is given back.
    """
    blocks = [bytes(_BLOCK_BYTES) for _ in range(_ROOM_BYTES // _BLOCK_BYTES)]
    one_of_each = {id(block) // _ARENA_BYTES: block for block in blocks}
    del blocks
    yield
    one_of_each.clear()


def gather(kernel: Path = Path("/proc/self")) -> int:
    """Asks for large pages wherever this process's own memory fills some. Returns how many bytes are in such now."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        for start, length in _large_spans((kernel / "maps").read_text()):
            # What cannot be gathered (nothing is there, no large page is free) stays as it is.
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _COLLAPSE)
        rollup = (kernel / "smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("AnonHugePages:"))


def _large_spans(maps: str) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the whole large pages in each private, writable mapping of no file."""
    for line in maps.splitlines():
        span, access, _, _, inode, *name = line.split(maxsplit=5)
        if inode != "0" or access != "rw-p" or (name and name[0].strip() not in ("", "[heap]")):
            continue
        low, high = (int(address, 16) for address in span.split("-"))
        first, end = -(-low // LARGE_BYTES) * LARGE_BYTES, high // LARGE_BYTES * LARGE_BYTES
        if first < end:
            yield first, end - first
