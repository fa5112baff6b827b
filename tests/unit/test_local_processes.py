"""The processes of one `start`: started as children, started again when they die, left off when they cannot run."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from highnoon.coordinator.local import local_processes
from highnoon.coordinator.local.local_processes import Fleet
from highnoon.coordinator.local.owned_process import Command, OwnedProcess
from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.data_dir import Home
from highnoon.shared.runtime.processes import identify
from highnoon.shared.runtime.settings import load_settings
from tests.support import eventually


def command(tmp_path: Path, *argv: str) -> Command:
    return Command(argv=argv, cwd=tmp_path, log=tmp_path / "log", polite=signal.SIGTERM)


def test_child_is_the_program_itself_once_it_is_started(tmp_path: Path) -> None:
    process = OwnedProcess(command(tmp_path, "sleep", "60"))
    identity = process.identity()
    assert identity is not None and identity.name == "sleep"
    assert os.getpgid(process.pid) == process.pid
    status = Path(f"/proc/{process.pid}/status").read_text()
    ignored = int(re.search(r"SigIgn:\s*(\w+)", status)[1], 16)  # type: ignore[index]
    assert not ignored & (1 << signal.SIGPIPE - 1), "it inherits nothing that Python ignores"
    assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) == 3
    process.stop()
    assert process.exit_status == -signal.SIGTERM


def test_last_lines_of_a_log_of_any_size_take_little_memory(tmp_path: Path) -> None:
    process = OwnedProcess(command(tmp_path, "true"))
    process.stop()
    with (tmp_path / "log").open("wb") as log:
        log.truncate(100_000_000)
        log.seek(0, os.SEEK_END)
        log.write(b"\nlast but one\nlast\n")

    tracemalloc.start()
    assert process.last_lines(2) == "last but one\nlast"
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_program_that_cannot_be_executed_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        OwnedProcess(command(tmp_path, "no-such-program"))
    (tmp_path / "text").write_text("text")
    with pytest.raises(PermissionError):
        OwnedProcess(command(tmp_path, str(tmp_path / "text")))


def test_child_dies_with_the_thread_that_started_it(tmp_path: Path) -> None:
    pids: list[int] = []
    starting = threading.Thread(target=lambda: pids.append(OwnedProcess(command(tmp_path, "sleep", "60")).pid))
    starting.start()
    starting.join()
    eventually(lambda: identify(pids[0]) is None, what="its child is gone")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(local_processes, "module_command", lambda *argv: [sys.executable, "-S", "-c", *argv])
    home = Home(tmp_path)
    home.prepare()
    fleet = Fleet(load_settings({}, home=tmp_path), home, slots=1)
    sleep = ["import time; time.sleep(60)"]
    fleet._commands = {"worker": sleep, "dashboard": sleep, "flower": ["raise SystemExit(3)"]}
    return fleet


def test_dead_dashboard_is_started_again_and_what_cannot_run_is_left_off(fleet: Fleet) -> None:
    fleet.start()
    dashboard = fleet._processes["dashboard"].pid
    os.kill(dashboard, signal.SIGKILL)
    lines: list[str] = []

    def all_said() -> bool:
        lines.extend(fleet.heal())
        return lines[-1:] == ["flower ended 6 times within a minute (exit status 3) and stays off"]

    eventually(all_said, what="Flower is given up")
    assert "started again: dashboard (exit status -9)" in lines
    assert lines.count("started again: flower (exit status 3)") == 5
    assert fleet._processes["dashboard"].is_alive and fleet._processes["dashboard"].pid != dashboard
    assert fleet.heal() == ()
    fleet.stop()


def test_worker_that_dies_again_and_again_ends_the_start(fleet: Fleet) -> None:
    fleet._commands = {"worker": ["raise SystemExit('no memory')"]}
    fleet.start()

    def heals() -> bool:
        with pytest.raises(EmbeddedServiceError, match="no memory"):
            while True:
                fleet.heal()
        return True

    eventually(heals)
