"""Whether one more trial fits beside those that run: the prediction, the sum, and two supervisors that ask at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.memory.poller import MemoryPoller, MemorySample, Scope
from highnoon.shared.store.node_queries import StudyPeaks
from highnoon.workers.monitor.admission import LEAST_PEAKS, Admission, Admitted, has_room, predicted_peak_bytes
from highnoon.workers.slot_state import SlotState, SlotStates, encoded

GIB = 1 << 30
MESSAGE = RunTrial(study="digits", ticket=7)
SPEC = StudySpec(
    name="digits", objective="train:objective", search_space={"x": ["uniform", 0, 1]}, admission="measured"
)


class StillMemory(MemoryPoller):
    """A node of 10 GiB that uses as much as the test sets."""

    def __init__(self, used_bytes: int = GIB) -> None:
        super().__init__()
        self.used_bytes = used_bytes

    def node(self) -> MemorySample:
        scope = Scope(name="host", limit_bytes=10 * GIB, used_bytes=self.used_bytes)
        return MemorySample(at_s=0.0, scopes=(scope,))


class Node:
    """Two slots: this process is one, `neighbour` writes the state of the other."""

    def __init__(self, folder: Path) -> None:
        self.slots = SlotStates(folder)
        self.slots.prepare()
        self.folder = folder
        self.now = 0.0
        self.memory = StillMemory()

    def neighbour(self, reserved_bytes: int | None) -> None:
        parent = os.getppid()
        ticks = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19])
        state = SlotState(pid=parent, started_ticks=ticks, study="other", ticket=1, reserved_bytes=reserved_bytes)
        (self.folder / "slots" / f"{parent}.state").write_bytes(encoded(state))

    def admit(
        self,
        peaks: tuple[int, ...] = (),
        admission: Admission | None = None,
        message: RunTrial = MESSAGE,
        **spec: Any,
    ) -> Admitted | None:
        asked = admission or self.admission(peaks)
        with self.slots.at_work(message.study, message.ticket):
            return asked.admit(message, 1, SPEC.model_copy(update=spec), must_end=lambda: True)

    def admission(self, peaks: tuple[int, ...]) -> Admission:
        return Admission(
            self.folder / "admission",
            2,
            self.slots,
            lambda study_id, ticket: StudyPeaks(peaks=peaks, own_peaks=()),
            poller=self.memory,
            clock=lambda: self.now,
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_few_peaks_give_no_prediction() -> None:
    assert predicted_peak_bytes([GIB] * (LEAST_PEAKS - 1), [], unknown_bytes=5 * GIB) == 5 * GIB


def test_most_trials_stay_below_the_prediction_and_one_outlier_does_not_determine_it() -> None:
    predicted = predicted_peak_bytes([GIB] * 19 + [30 * GIB], [], unknown_bytes=5 * GIB)
    assert predicted == round(1.1 * GIB)
    assert predicted_peak_bytes([GIB] * 15 + [3 * GIB] * 5, [], unknown_bytes=0) == round(3.3 * GIB)


def test_the_next_attempt_takes_what_earlier_ones_of_its_ticket_took() -> None:
    assert predicted_peak_bytes([GIB] * 20, [6 * GIB], unknown_bytes=0) == round(6.6 * GIB)


@given(st.lists(st.integers(0, 1 << 40), min_size=LEAST_PEAKS))
def test_the_prediction_covers_nine_of_ten_trials_seen(peaks: list[int]) -> None:
    predicted = predicted_peak_bytes(peaks, [], unknown_bytes=0)
    assert sum(peak <= predicted for peak in peaks) >= 0.9 * len(peaks)
    assert predicted <= round(1.1 * max(peaks))


@given(st.integers(0, 1 << 50))
def test_alone_every_trial_is_admitted(wanted: int) -> None:
    assert has_room(wanted, [], trials_bytes=0, free_bytes=0)


def test_beside_others_it_must_fit_now_and_when_all_have_grown() -> None:
    assert has_room(3 * GIB, [5 * GIB], trials_bytes=8 * GIB, free_bytes=8 * GIB)
    assert not has_room(3 * GIB, [5 * GIB, 1], trials_bytes=8 * GIB, free_bytes=8 * GIB)
    assert not has_room(3 * GIB, [GIB], trials_bytes=8 * GIB, free_bytes=2 * GIB)


def test_a_further_trial_starts_only_where_its_peak_fits(node: Node) -> None:
    node.neighbour(5 * GIB)
    assert node.admit(peaks=(3 * GIB,) * 5) == Admitted()
    assert node.admit(peaks=(4 * GIB,) * 5) is None
    node.memory.used_bytes = 8 * GIB  # another user of the machine
    assert node.admit(peaks=(3 * GIB,) * 5) is None


def test_a_slot_that_runs_nothing_reserves_nothing(node: Node) -> None:
    node.neighbour(None)
    assert node.admit(peaks=(9 * GIB,) * 5) == Admitted()


def test_what_is_admitted_is_reserved(node: Node) -> None:
    with node.slots.at_work("digits", 7):
        node.admission((2 * GIB,) * 5).admit(MESSAGE, 1, SPEC, must_end=lambda: True)
        assert [state.reserved_bytes for state in node.slots.states()] == [round(2.2 * GIB)]
        assert node.slots.reserved_by_others() == [], "its own is not in its way"


def test_no_trial_takes_more_than_its_own_limit(node: Node) -> None:
    node.neighbour(5 * GIB)
    assert node.admit(peaks=(6 * GIB,) * 5, trial_memory_limit=3 * GIB) == Admitted()


def test_a_study_by_slots_never_waits_and_what_it_may_take_is_reserved(node: Node) -> None:
    node.neighbour(9 * GIB)
    by_slots = SPEC.model_copy(update={"admission": "slots", "trial_memory_limit": 2 * GIB})
    with node.slots.at_work("digits", 7):
        assert node.admission(()).admit(MESSAGE, 1, by_slots, must_end=lambda: True) == Admitted()
        assert [state.reserved_bytes for state in node.slots.states() if state.pid == os.getpid()] == [2 * GIB]


def test_a_study_that_would_starve_is_admitted_to_wait_for_the_node_alone(node: Node) -> None:
    node.neighbour(5 * GIB)
    admission = node.admission((9 * GIB,) * 5)
    assert node.admit(admission=admission) is None
    node.now = 299.0
    assert node.admit(admission=admission) is None
    node.now = 301.0
    assert node.admit(admission=admission) == Admitted(must_be_alone=True)
    assert node.admit(admission=admission) is None, "and its patience starts again"


def test_study_whose_ticket_was_put_off_once_and_ran_elsewhere_has_its_patience_again(node: Node) -> None:
    node.neighbour(5 * GIB)
    admission = node.admission((9 * GIB,) * 5)
    later = RunTrial(study="digits", ticket=8)
    assert node.admit(admission=admission) is None
    node.now = 3600.0
    assert node.admit(admission=admission, message=later) is None
    node.now = 3901.0
    assert node.admit(admission=admission, message=later) == Admitted(must_be_alone=True)


def test_ticket_that_ran_elsewhere_and_comes_back_has_its_patience_again(node: Node) -> None:
    node.neighbour(5 * GIB)
    admission = node.admission((9 * GIB,) * 5)
    assert node.admit(admission=admission) is None
    node.now = 3600.0
    assert node.admit(admission=admission) is None
    node.now = 3901.0
    assert node.admit(admission=admission) == Admitted(must_be_alone=True)


def test_study_that_ran_alone_has_its_patience_again_for_all_of_its_tickets(node: Node) -> None:
    node.neighbour(5 * GIB)
    admission = node.admission((9 * GIB,) * 5)
    first, second = (RunTrial(study="digits", ticket=ticket) for ticket in (7, 8))
    assert node.admit(admission=admission, message=first) is node.admit(admission=admission, message=second) is None
    node.now = 301.0
    assert node.admit(admission=admission, message=first) == Admitted(must_be_alone=True)
    assert node.admit(admission=admission, message=second) is None
