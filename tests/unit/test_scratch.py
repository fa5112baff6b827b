"""Scratch folders are locked while their supervisor lives, and removed without following a trial's links."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from highnoon.workers.trial import scratch
from highnoon.workers.trial.process import SHORT_PATH
from highnoon.workers.trial.scratch import Scratch, lock_of, remove_scratch, remove_unused


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "digits" / "trial-00007"


def begun(work_dir: Path) -> Scratch:
    own = Scratch(work_dir)
    own.lock()
    (work_dir / "tmp").mkdir(parents=True)
    return own


def test_folder_is_kept_while_its_supervisor_lives_and_is_free_once_that_was_killed(work_dir: Path) -> None:
    # Given a supervisor in another process, of which this one knows nothing else, and a program of its trial
    holds = (
        "import subprocess, sys, time; from pathlib import Path; from highnoon.workers.trial.scratch import Scratch\n"
        f"held = Scratch(Path({str(work_dir)!r})); held.lock(); (held.work_dir / 'tmp').mkdir(parents=True)\n"
        "subprocess.Popen([sys.executable, '-c', 'input()'], stdout=subprocess.DEVNULL)\n"
        "print('locked', flush=True); time.sleep(600)\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert supervisor.stdout is not None and supervisor.stdout.readline() == "locked\n"
        assert not remove_unused(work_dir)
        assert (work_dir / "tmp").is_dir()
    finally:
        supervisor.kill()
        supervisor.wait()

    # Then the kernel has released its lock, whatever its trial has left running
    assert remove_unused(work_dir)
    assert list(work_dir.parent.iterdir()) == []


def test_end_of_an_attempt_leaves_neither_folder_nor_lock(work_dir: Path) -> None:
    own = begun(work_dir)
    assert not remove_unused(work_dir)
    own.remove()
    assert list(work_dir.parent.iterdir()) == []

    own = begun(work_dir)
    (work_dir / "weights").touch()
    own.remove()
    assert list(work_dir.parent.iterdir()) == [work_dir], "the objective has written into it"


def test_attempt_finds_nothing_that_a_trial_of_a_deleted_study_of_its_name_has_kept(work_dir: Path) -> None:
    work_dir.mkdir(parents=True)
    (work_dir / "weights").write_text("of the deleted study")
    own = begun(work_dir)
    assert [path.name for path in work_dir.iterdir()] == ["tmp"]
    own.remove()
    (aside,) = work_dir.parent.iterdir()
    assert (aside / "weights").read_text() == "of the deleted study"


def test_attempt_begins_without_files_of_an_earlier_one_of_its_name(work_dir: Path) -> None:
    (work_dir / "tmp" / "saved").mkdir(parents=True)
    own = Scratch(work_dir)
    own.lock()
    assert not (work_dir / "tmp").exists()
    own.remove()


def test_lock_whose_file_was_removed_meanwhile_is_taken_again(work_dir: Path) -> None:
    # Given an agent that has found the lock of a dead supervisor free, and removes its files
    work_dir.mkdir(parents=True)
    agent = os.open(lock_of(work_dir), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(agent, fcntl.LOCK_EX)
    own = Scratch(work_dir)
    waits = threading.Thread(target=own.lock)
    waits.start()
    lock_of(work_dir).unlink()
    os.close(agent)
    waits.join(60.0)

    # Then the next supervisor has a lock that others find
    (work_dir / "tmp").mkdir(parents=True)
    assert lock_of(work_dir).exists() and not remove_unused(work_dir)
    own.remove()


def test_attempt_that_cannot_have_the_folder_removes_nothing_of_the_one_that_has_it(
    work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_BUSY_S", 0.2)
    own, other = begun(work_dir), Scratch(work_dir)
    with pytest.raises(OSError, match="another attempt of the same name uses this folder"):
        other.lock()
    other.remove()
    Scratch(work_dir).remove()  # of an attempt that was refused before it had begun
    assert (work_dir / "tmp").is_dir() and lock_of(work_dir).exists() and not remove_unused(work_dir)
    own.remove()
    assert list(work_dir.parent.iterdir()) == []


def test_folder_without_a_lock_is_kept_until_nothing_in_it_has_changed_for_a_week(work_dir: Path) -> None:
    """Of a version without locks, whose supervisor may be in another container."""
    saved = work_dir / "tmp" / "saved"
    saved.mkdir(parents=True)
    (saved / "1").touch()
    assert not remove_unused(work_dir)
    days_ago = time.time() - 6.9 * 86_400
    for path in (work_dir / "tmp", saved):
        os.utime(path, (0, 0))
    os.utime(saved / "1", (days_ago, days_ago))
    assert not remove_unused(work_dir) and (saved / "1").exists()
    assert list(work_dir.parent.iterdir()) == [work_dir], "no lock is left, by which the folder would be free"
    os.utime(saved / "1", (0, 0))
    assert remove_unused(work_dir) and not work_dir.exists()


def test_disk_without_locks_runs_trials_all_the_same(
    work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(scratch.fcntl, "flock", refused)
    work_dir.mkdir(parents=True)
    (work_dir / "tmp").symlink_to(tmp_path)  # by an earlier trial
    own = begun(work_dir)
    assert not (work_dir / "tmp").is_symlink() and not remove_unused(work_dir)
    own.remove()
    assert not work_dir.exists()

    # What is left there by a supervisor that was killed is removed as well, in time
    (work_dir / "tmp").mkdir(parents=True)
    os.utime(work_dir / "tmp", (0, 0))
    assert remove_unused(work_dir) and list(work_dir.parent.iterdir()) == []


def test_short_path_goes_with_its_folder(work_dir: Path, tmp_path: Path) -> None:
    folder, short = work_dir / "tmp", tmp_path / "highnoon-abc"
    folder.mkdir(parents=True)
    short.mkdir()
    (short / "tmp").symlink_to(folder)
    (folder / SHORT_PATH).symlink_to(short)
    remove_scratch(work_dir)
    assert not short.exists() and not work_dir.exists()


@pytest.mark.parametrize("relative", [False, True])
def test_link_of_a_trial_to_other_folders_has_nothing_removed(work_dir: Path, tmp_path: Path, relative: bool) -> None:
    folder, victim = work_dir / "tmp", tmp_path / "checkpoints"
    (victim / "tmp").mkdir(parents=True)
    (victim / "tmp" / "model").touch()
    folder.mkdir(parents=True)
    (folder / SHORT_PATH).symlink_to("../../../../checkpoints" if relative else victim)
    remove_scratch(work_dir)
    assert (victim / "tmp" / "model").exists() and not work_dir.exists()


def test_link_in_the_place_of_the_folder_costs_another_trial_nothing(work_dir: Path, tmp_path: Path) -> None:
    # Given another trial with a short path
    other, short = work_dir.with_name("trial-00008") / "tmp", tmp_path / "highnoon-abc"
    other.mkdir(parents=True)
    short.mkdir()
    (short / "tmp").symlink_to(other)
    (other / SHORT_PATH).symlink_to(short)

    # When a trial replaces its own folder by a link to the other one
    work_dir.mkdir()
    (work_dir / "tmp").symlink_to(other)
    remove_scratch(work_dir)

    assert (short / "tmp").is_dir() and (other / SHORT_PATH).is_symlink() and not work_dir.exists()
