"""What killed supervisors and ended studies left on the disk is removed, and nothing that may be in use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from highnoon.workers.leftovers import remove_old_checkpoints, remove_stray_scratch
from highnoon.workers.slot_state import SlotStates
from highnoon.workers.trial.scratch import lock_of


@pytest.fixture
def slots(tmp_path: Path) -> SlotStates:
    slots = SlotStates(tmp_path / "nodes" / "a" / "slots")
    slots.prepare()
    return slots


def made(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True)


def test_scratch_files_that_no_slot_works_on_are_removed(tmp_path: Path, slots: SlotStates) -> None:
    # Given two folders whose locks are free, as on a disk that another machine locks on its own
    mine, stray = (tmp_path / "runs" / "digits" / f"trial-0000{number}" / "tmp" for number in (1, 2))
    made(mine, stray)
    for folder in (mine, stray):
        lock_of(folder.parent).touch()
    (stray.parent / "weights").touch()
    with slots.at_work("digits", 17):
        slots.add_attempt(1, f"/another/path/to/the/home/{mine.parent.relative_to(tmp_path)}")
        assert remove_stray_scratch(tmp_path) == 1
        assert mine.exists() and not stray.exists() and (stray.parent / "weights").exists()
        assert [path.name for path in stray.parent.parent.glob(".*")] == [".trial-00001.lock"]
        # What cannot be read may be in use.
        stray.mkdir()
        lock_of(stray.parent).touch()
        (tmp_path / "nodes" / "a" / "slots" / "1.state").write_text("{")
        assert remove_stray_scratch(tmp_path) == 0


def test_lock_of_a_supervisor_that_died_before_it_made_the_folder_is_removed(tmp_path: Path) -> None:
    made(tmp_path / "runs" / "digits")
    (tmp_path / "runs" / "digits" / ".trial-00007.lock").touch()
    assert remove_stray_scratch(tmp_path) == 1
    assert list((tmp_path / "runs" / "digits").iterdir()) == []


def test_checkpoints_of_studies_that_are_over_are_removed(tmp_path: Path, slots: SlotStates) -> None:
    names = ("over", "running", "continued", "deleted", "foreign")
    checkpoints = [tmp_path / "checkpoints" / name / "ticket-00000" / "attempt-1" for name in names]
    made(*checkpoints)
    months_ago = time.time() - 100 * 86_400
    for path in (tmp_path / "checkpoints" / "deleted").rglob("*"):
        os.utime(path, (months_ago, months_ago))
    os.utime(tmp_path / "checkpoints" / "deleted", (months_ago, months_ago))
    os.utime(tmp_path / "checkpoints" / "foreign", (months_ago, months_ago))  # a file below it is new

    with slots.at_work("continued", 3):  # by a person who has added trials to it
        known = {"over": True, "continued": True, "running": False}
        assert remove_old_checkpoints(tmp_path, known.get) == 2

    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"running", "continued", "foreign"}
    assert remove_old_checkpoints(tmp_path / "nowhere", known.get) == 0
