"""Large pages: fewer of them for a fork to copy, the same bytes in them, and a kernel that refuses is no error."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from workers import huge_pages

SMALL = """\
00400000-00500000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000010000 rw-p 00000000 00:00 0
"""
"""What holds no whole large page: the kernel is asked for nothing."""


def huge_kilobytes() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("AnonHugePages:"))


def test_memory_in_use_comes_to_lie_in_large_pages_with_its_content() -> None:
    with mmap.mmap(-1, 16 * huge_pages.LARGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        written = bytes(range(256)) * (len(memory) // 256)
        memory[:] = written
        before = huge_kilobytes()
        gathered = huge_pages.gather()
        if not gathered:
            pytest.skip("this kernel gives no large pages on request (Linux 6.1 does)")
        assert gathered >= 15 * huge_pages.LARGE_BYTES, "all but the edges of this mapping"
        assert huge_kilobytes() - before >= 15 * huge_pages.LARGE_BYTES // 1024
        assert memory[:] == written


def test_what_holds_no_large_page_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text(SMALL)
    assert huge_pages.gather(tmp_path / "maps") == 0
