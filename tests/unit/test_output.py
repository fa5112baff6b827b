"""What a trial prints: bounded on the disk, the tail for the ledger."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from highnoon.workers.trial.output import Output


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    output = Output(tmp_path / "logs" / "trial.log", limit_bytes=10_000, tail_bytes=200)
    yield output
    output.close()


def test_short_output_is_kept_whole(output: Output) -> None:
    os.write(output.writing_end, "epoch 1 — loss 0.5\n".encode())
    output.drain()
    assert output.path.read_text() == "epoch 1 — loss 0.5\n"
    assert output.tail() == "epoch 1 — loss 0.5\n"


def test_a_million_lines_stay_within_the_limit_and_the_last_one_is_kept(output: Output) -> None:
    written = 0
    for block in range(1_000):
        lines = "".join(f"line {block * 1_000 + i}\n" for i in range(1_000)).encode()
        while lines:
            written += (count := os.write(output.writing_end, lines[:60_000]))
            lines = lines[count:]
            output.drain()
    rotated = output.path.with_name("trial.log.1")
    # One chunk may be larger than half the limit; nothing grows beyond it.
    assert output.path.stat().st_size + rotated.stat().st_size <= 2 * 65_536
    assert written > 10_000_000
    tail = output.tail().splitlines()
    assert tail[-1] == "line 999999"
    assert all(line.startswith("line ") for line in tail), "the tail begins with a whole line"
    assert output.path.read_text().endswith("line 999999\n")


def test_log_of_an_older_trial_of_that_name_is_not_its_first_part(output: Output) -> None:
    output.path.with_name("trial.log.1").write_text("of a study that was deleted\n")
    output.path.write_text("of a study that was deleted\n")
    with closing(Output(output.path, limit_bytes=10_000, tail_bytes=200)):
        assert [path.read_text() for path in output.path.parent.iterdir()] == [""]


def test_what_is_no_text_does_not_break_the_tail(output: Output) -> None:
    os.write(output.writing_end, b"\xff\xfe\x00ok\n")
    output.drain()
    assert output.tail().endswith("ok\n")
    assert "\x00" not in output.tail(), "PostgreSQL refuses NUL in text"


def test_the_end_of_the_output_is_noticed(output: Output) -> None:
    output.release_writing_end()
    output.drain()
    assert output.ended


def test_a_full_disk_costs_the_file_and_not_the_trial() -> None:
    output = Output(Path("/dev/full"), limit_bytes=10_000, tail_bytes=200)
    os.write(output.writing_end, b"epoch 1\n")
    output.drain()
    assert output.tail() == "epoch 1\n"
    output.close()


def test_no_tail_may_be_wanted(tmp_path: Path) -> None:
    output = Output(tmp_path / "trial.log", limit_bytes=10_000, tail_bytes=0)
    os.write(output.writing_end, b"epoch 1\n")
    output.drain()
    assert (output.tail(), output.path.read_text()) == ("", "epoch 1\n")
    output.close()


def test_log_that_cannot_be_rotated_costs_no_trial(output: Output) -> None:
    """Its folder was removed meanwhile."""
    shutil.rmtree(output.path.parent)
    for number in range(300):
        os.write(output.writing_end, f"line {number:090}\n".encode())
        output.drain()
    assert output.tail().endswith(f"{299:090}\n")


def test_log_goes_on_after_a_rotation_that_was_refused(output: Output) -> None:
    """With the last descriptor taken it is renamed, and the new one cannot be opened."""

    def write(numbers: range) -> None:
        for number in numbers:
            os.write(output.writing_end, f"line {number:094}\n".encode())
            output.drain()

    rotated = output.path.with_name("trial.log.1")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        write(range(300))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not output.path.exists() and rotated.stat().st_size == 10_000, "no more than the limit"
    write(range(300, 340))
    lines = [int(line.split()[1]) for path in (rotated, output.path) for line in path.read_text().splitlines()]
    assert lines == [*range(100), *range(300, 340)]
