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
def slots(tmp_path: Path) -> SlotStates:
    slots = SlotStates(tmp_path)
    slots.prepare()
    return slots


def test_slot_is_at_work_from_before_its_start_until_it_has_released(slots: SlotStates) -> None:
    assert slots.none_at_work()
    with slots.at_work("digits", 17):
        assert not slots.none_at_work()
        assert slots.orphaned() == [], "its writer is alive"
    assert slots.none_at_work()


def test_state_of_a_dead_supervisor_is_found_and_dropped(slots: SlotStates, tmp_path: Path) -> None:
    # Given a supervisor that dies in the middle of an attempt
    dies = (
        "import os; from pathlib import Path; from highnoon.workers.slot_state import SlotStates, encoded\n"
        f"slots = SlotStates(Path({str(tmp_path)!r}))\n"
        "with slots.at_work('digits', 17):\n"
        "    slots.add_attempt(2); slots.add_trial(4711); os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", dies], check=False)

    # Then its state has what to release, and is no work under way
    (state,) = slots.orphaned()
    assert (state.study, state.ticket, state.attempt, state.trial_group) == ("digits", 17, 2, 4711)
    assert slots.none_at_work()
    slots.drop(state)
    assert slots.orphaned() == []


def test_reused_pid_of_a_dead_supervisor_is_not_taken_for_it(slots: SlotStates, tmp_path: Path) -> None:
    with slots.at_work("digits", 17):
        (state,) = slots.states()
    older = replace(state, started_ticks=state.started_ticks - 1)
    (tmp_path / "slots" / f"{state.pid}.state").write_bytes(encoded(older))
    (state,) = slots.orphaned()
    assert state.pid == os.getpid() and state.attempt is None


def test_torn_file_is_ignored(slots: SlotStates, tmp_path: Path) -> None:
    with slots.at_work("digits", 17):
        whole = next((tmp_path / "slots").iterdir()).read_bytes()
    (tmp_path / "slots" / "1.state").write_bytes(whole[:40])
    (tmp_path / "slots" / "2.state").write_bytes(whole.replace(b"17", b"18"))
    assert slots.states() == slots.orphaned() == [] and slots.none_at_work()


def test_file_that_cannot_be_read_hides_no_other_and_may_be_of_a_slot_at_work(
    slots: SlotStates, tmp_path: Path
) -> None:
    # Given a file as on a network disk that gives errors: here a folder is in its place
    (tmp_path / "slots" / "1.state").mkdir()
    with slots.at_work("digits", 17):
        (state,) = slots.states()
        assert state.ticket == 17 and slots.supervisors() == [os.getpid()] and slots.orphaned() == []
    assert not slots.none_at_work()
    with pytest.raises(IsADirectoryError):
        slots.all_states()
    slots.drop(replace(state, pid=1))


def test_folder_that_cannot_be_read_may_be_of_slots_at_work(tmp_path: Path) -> None:
    slots = SlotStates(tmp_path / ("too long a name" * 20))
    assert slots.states() == [] and not slots.none_at_work()
    with pytest.raises(OSError, match="too long"):
        slots.all_states()


def test_longer_state_leaves_nothing_in_a_shorter_one(slots: SlotStates) -> None:
    with slots.at_work("a study with a long name", 123456):
        slots.add_attempt(3, "/a/working/folder")
    with slots.at_work("x", 1):
        (state,) = slots.states()
    assert (state.study, state.ticket, state.attempt, state.work_dir) == ("x", 1, None, None)


def test_supervisor_that_ends_in_order_leaves_no_file(slots: SlotStates, tmp_path: Path) -> None:
    with slots.at_work("digits", 17):
        pass
    slots.close()
    assert list((tmp_path / "slots").iterdir()) == []


def test_number_of_an_ended_trial_is_forgotten_also_on_a_disk_that_fails(slots: SlotStates) -> None:
    with slots.at_work("digits", 17):
        slots.add_attempt(1, "/a/working/folder")
        slots.add_trial(4711)
        slots.forget_trial()
        (state,) = slots.states()
        assert (state.attempt, state.trial_group) == (1, None)
        assert slots._file is not None
        os.close(slots._file)
        slots.forget_trial()


def test_state_that_cannot_be_cleared_goes_with_its_file(slots: SlotStates) -> None:
    with slots.at_work("digits", 17):
        # As on a disk that fails meanwhile.
        assert slots._file is not None
        os.close(slots._file)
    assert slots.states() == [] and slots.none_at_work()
    with slots.at_work("digits", 18):
        assert [state.ticket for state in slots.states()] == [18]
