"""The files in which an agent finds what its supervisors hold: from before a start until the lease is released."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from highnoon.workers.slot_state import SlotStates, encoded


@pytest.fixture
def notes(tmp_path: Path) -> SlotStates:
    notes = SlotStates(tmp_path / "slots")
    notes.prepare()
    return notes


def test_slot_is_at_work_from_before_its_start_until_it_has_released(notes: SlotStates) -> None:
    assert notes.none_at_work()
    with notes.at_work("digits", 17):
        assert not notes.none_at_work()
        assert notes.orphaned() == [], "its writer is alive"
    assert notes.none_at_work()


def test_state_of_a_dead_supervisor_is_found_and_dropped(notes: SlotStates, tmp_path: Path) -> None:
    # Given a supervisor that dies in the middle of an attempt
    dies = (
        "import os; from pathlib import Path; from highnoon.workers.slot_state import SlotStates, encoded\n"
        f"notes = SlotStates(Path({str(tmp_path / 'slots')!r}))\n"
        "with notes.at_work('digits', 17):\n"
        "    notes.add_attempt(2); notes.add_trial(4711); os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", dies], check=False)

    # Then its state has what to release, and is no work under way
    (note,) = notes.orphaned()
    assert (note.study, note.ticket, note.attempt, note.trial_group) == ("digits", 17, 2, 4711)
    assert notes.none_at_work()
    notes.drop(note)
    assert notes.orphaned() == []


def test_reused_pid_of_a_dead_supervisor_is_not_taken_for_it(notes: SlotStates, tmp_path: Path) -> None:
    with notes.at_work("digits", 17):
        (state,) = notes.states()
    older = replace(state, started_ticks=state.started_ticks - 1)
    (tmp_path / "slots" / f"{state.pid}.state").write_bytes(encoded(older))
    (note,) = notes.orphaned()
    assert note.pid == os.getpid() and note.attempt is None


def test_torn_file_is_ignored(notes: SlotStates, tmp_path: Path) -> None:
    with notes.at_work("digits", 17):
        whole = next((tmp_path / "slots").iterdir()).read_bytes()
    (tmp_path / "slots" / "1.state").write_bytes(whole[:40])
    (tmp_path / "slots" / "2.state").write_bytes(whole.replace(b"17", b"18"))
    assert notes.states() == notes.orphaned() == [] and notes.none_at_work()


def test_file_that_cannot_be_read_hides_no_other_and_may_be_of_a_slot_at_work(
    notes: SlotStates, tmp_path: Path
) -> None:
    # Given a file as on a network disk that gives errors: here a folder is in its place
    (tmp_path / "slots" / "1.state").mkdir()
    with notes.at_work("digits", 17):
        (state,) = notes.states()
        assert state.ticket == 17 and notes.supervisors() == [os.getpid()] and notes.orphaned() == []
    assert not notes.none_at_work()
    with pytest.raises(IsADirectoryError):
        notes.all_states()
    notes.drop(replace(state, pid=1))


def test_folder_that_cannot_be_read_may_be_of_slots_at_work(tmp_path: Path) -> None:
    notes = SlotStates(tmp_path / ("too long a name" * 20))
    assert notes.states() == [] and not notes.none_at_work()
    with pytest.raises(OSError, match="too long"):
        notes.all_states()


def test_longer_state_leaves_nothing_in_a_shorter_one(notes: SlotStates) -> None:
    with notes.at_work("a study with a long name", 123456):
        notes.add_attempt(3, "/a/working/folder")
    with notes.at_work("x", 1):
        (state,) = notes.states()
    assert (state.study, state.ticket, state.attempt, state.work_dir) == ("x", 1, None, None)


def test_supervisor_that_ends_in_order_leaves_no_file(notes: SlotStates, tmp_path: Path) -> None:
    with notes.at_work("digits", 17):
        pass
    notes.close()
    assert list((tmp_path / "slots").iterdir()) == []


def test_number_of_an_ended_trial_is_forgotten_also_on_a_disk_that_fails(notes: SlotStates) -> None:
    with notes.at_work("digits", 17):
        notes.add_attempt(1, "/a/working/folder")
        notes.add_trial(4711)
        notes.forget_trial()
        (state,) = notes.states()
        assert (state.attempt, state.trial_group) == (1, None)
        assert notes._file is not None
        os.close(notes._file)
        notes.forget_trial()


def test_state_that_cannot_be_cleared_goes_with_its_file(notes: SlotStates) -> None:
    with notes.at_work("digits", 17):
        # As on a disk that fails meanwhile.
        assert notes._file is not None
        os.close(notes._file)
    assert notes.states() == [] and notes.none_at_work()
    with notes.at_work("digits", 18):
        assert [state.ticket for state in notes.states()] == [18]
