"""Large pages: fewer of them for a fork to copy, the same bytes in them, and a kernel that refuses is no error."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from highnoon.workers.trial import huge_pages


def test_memory_in_use_comes_to_lie_in_large_pages_with_its_content() -> None:
    with mmap.mmap(-1, 16 * huge_pages.LARGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        written = bytes(range(256)) * (len(memory) // 256)
        memory[:] = written
        gathered = huge_pages.gather()
        if not gathered:
            pytest.skip("this kernel gives no large pages on request (Linux 6.1 does)")
        assert gathered >= 15 * huge_pages.LARGE_BYTES, "all but the edges of this mapping"
        assert memory[:] == written


def test_only_whole_large_pages_of_own_memory_are_asked_for() -> None:
    maps = """\
00400000-00600000 r-xp 00000000 08:01 77                                 /usr/bin/python
00a00000-00fff000 rw-p 00000000 00:00 0                                  [heap]
7f0000100000-7f0000300000 rw-p 00000000 00:00 0
7f0000400000-7f0000800000 rw-p 00000000 00:00 0
7f0000800000-7f0000c00000 ---p 00000000 00:00 0
7f0000c00000-7f0001000000 rw-p 00000000 08:01 78                         /usr/lib/libc.so
7ffd00000000-7ffd00400000 rw-p 00000000 00:00 0                          [stack]
"""
    assert list(huge_pages._large_spans(maps)) == [(0xA00000, 0x400000), (0x7F0000400000, 0x400000)]


def test_a_kernel_that_does_not_tell_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "maps").touch()
    assert huge_pages.gather(tmp_path) == 0
