"""What killed supervisors and ended studies left on the disk is removed, and nothing that may be in use."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.workers.leftovers import remove_old_checkpoints, remove_stray_scratch
from highnoon.workers.slot_state import SlotStates
from highnoon.workers.trial.scratch import lock_of


@pytest.fixture
def slots(tmp_path: Path) -> SlotStates:
    slots = SlotStates(tmp_path / "nodes" / "a")
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


def of_last_year(home: Path, *names: str) -> None:
    """Checkpoints of these studies that have not changed for months."""
    months_ago = time.time() - 100 * 86_400
    for name in names:
        study = home / "checkpoints" / name
        made(study / "ticket-00000" / "attempt-1")
        (study / "ticket-00000" / "attempt-1" / "weights").touch()
        for path in (study, *study.rglob("*")):
            os.utime(path, (months_ago, months_ago))


def test_old_checkpoints_of_studies_that_are_over_are_removed(tmp_path: Path, slots: SlotStates) -> None:
    of_last_year(tmp_path, "over", "running", "continued", "deleted", "foreign", "of-two-clusters")
    for name in ("foreign", "of-two-clusters"):  # over or unknown here, and running in another cluster
        os.utime(tmp_path / "checkpoints" / name / "ticket-00000" / "attempt-1" / "weights")

    with slots.at_work("continued", 3):  # by a person who has added trials to it
        known = {"over": True, "continued": True, "running": False, "of-two-clusters": True}
        assert remove_old_checkpoints(tmp_path, known.get) == 2

    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"running", "continued", "foreign", "of-two-clusters"}
    assert remove_old_checkpoints(tmp_path / "nowhere", known.get) == 0


@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
def test_checkpoints_of_a_study_that_is_continued_during_the_removal_are_kept(
    tmp_path: Path, has_begun: bool, is_away: bool
) -> None:
    of_last_year(tmp_path, "continued")
    study, asked = tmp_path / "checkpoints" / "continued", []

    def is_over(name: str) -> bool:
        asked.append(name)
        if len(asked) == 1:
            return True
        if has_begun:
            made(study / "ticket-00001" / "attempt-1")
        if is_away:
            raise ServiceUnavailable("no answer")
        return False

    with pytest.raises(ServiceUnavailable) if is_away else nullcontext():
        assert remove_old_checkpoints(tmp_path, is_over) == 0
    assert (study / "ticket-00000" / "attempt-1" / "weights").exists()
    assert (study / "ticket-00001").exists() == has_begun


def test_what_is_left_of_a_removal_that_was_interrupted_is_removed_later(tmp_path: Path) -> None:
    of_last_year(tmp_path, ".removing-1")
    made(tmp_path / "checkpoints" / ".removing-2")  # perhaps at this moment, by another node
    assert remove_old_checkpoints(tmp_path, {}.get) == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [".removing-2"]


def test_checkpoints_that_cannot_be_read_are_kept_and_do_not_keep_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_last_year(tmp_path, "a", "unreadable", "z")
    lstat = Path.lstat

    def refused(path: Path) -> os.stat_result:
        if "unreadable" in path.parts and path.name == "weights":
            raise PermissionError(13, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refused)
    assert remove_old_checkpoints(tmp_path, {}.get) == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["unreadable"]
