"""A log is followed line by line: while it grows, when it is rotated, and only where it lies on this host."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from highnoon.coordinator.cli.trials import follow_log, last_lines
from highnoon.shared.domain.states import Ending
from highnoon.shared.store.attempt_records import AttemptRecord


def attempt(path: Path, **fields: Any) -> AttemptRecord:
    blank = dict.fromkeys(["ended_at", "exit_status", "signal", "peak_rss_bytes", "cause", "message", "log_tail"])
    known = {"ticket_id": 1, "ordinal": 0, "attempt": 1, "pid": 7, "worker_id": "w", "started_at": 0.0}
    here = {"host": socket.gethostname(), "trial_number": 3, "log_path": str(path), "ending": None}
    return AttemptRecord(**{**blank, **known, **here, **fields})


def followed(path: Path, *steps: Callable[[], object], **fields: Any) -> list[str]:
    """What is handed on when each step happens between two looks, the last one before the attempt is seen as over."""
    happening = iter(steps)
    written: list[str] = []
    looks = 0

    def look() -> AttemptRecord:
        nonlocal looks
        looks += 1
        ending = Ending.COMPLETED if looks > len(steps) else None
        return attempt(path, **{"ending": ending, **fields})

    follow_log(look, written.append, first=fields.pop("first", None), pause=lambda _: next(happening)())
    return written


def add(path: Path, text: str) -> Callable[[], object]:
    def write() -> None:
        with path.open("a") as stream:
            stream.write(text)

    return write


def test_log_is_followed_before_it_exists(tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    assert followed(log, lambda: None, add(log, "one\ntw"), add(log, "o\nthree")) == ["one", "two", "three"]


def test_only_its_last_lines_are_shown_first(tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    log.write_text("1\n2\n3\n4\n")
    assert followed(log, add(log, "5\n"), first=2) == ["3", "4", "5"]
    assert followed(log, add(log, "6\n"), first=0) == ["6"]
    assert followed(log, first=99) == ["1", "2", "3", "4", "5", "6"]


def test_rotated_log_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    log.write_text("1\n")

    def rotate() -> None:
        add(log, "2\n")()
        log.replace(tmp_path / "trial.log.1")
        log.write_text("3\n")

    assert followed(log, rotate, add(log, "4\n")) == ["1", "2", "3", "4"]
    assert last_lines(attempt(log), 3) == ["2", "3", "4"]


def test_local_file_is_not_used_for_a_log_of_another_host(tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    log.write_text("of another host\n")
    elsewhere = attempt(log, host="node-b", log_tail="epoch 1\nepoch 2\n")
    assert followed(log, lambda: None, host="node-b") == []
    assert last_lines(elsewhere, None) == ["epoch 1", "epoch 2"]
    assert last_lines(elsewhere, 1) == ["epoch 2"]
    assert last_lines(elsewhere, 0) == []


def test_missing_log_falls_back_to_the_ledger(tmp_path: Path) -> None:
    assert last_lines(attempt(tmp_path / "none.log", log_tail="the end\n"), None) == ["the end"]
