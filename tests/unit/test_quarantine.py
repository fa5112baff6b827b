"""A node is put into quarantine when it fails where others do not, and not otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.coordinator.planner import Quarantine, quarantined
from highnoon.shared.store.node_queries import Streak


def judged(length: int, *, ended: int, failed: int = 0, at_least: int = 5) -> list[Quarantine]:
    streak = Streak(worker_id="anna", length=length, causes={"crash": length}, others_ended=ended, others_failed=failed)
    return list(quarantined([streak], at_least))


def test_node_that_fails_alone_is_put_into_quarantine() -> None:
    (quarantine,) = judged(6, ended=20, failed=1)
    assert quarantine.worker_id == "anna"
    assert quarantine.reason == "its last 6 attempts failed (crash 6); on other nodes 1 of 20"


@pytest.mark.parametrize(
    ("length", "ended", "failed"),
    [
        pytest.param(4, 20, 0, id="not yet"),
        pytest.param(5, 3, 0, id="others have done too little to compare with"),
        pytest.param(10, 20, 10, id="half of all fail everywhere"),
        pytest.param(20, 20, 20, id="the study is broken"),
        pytest.param(20, 0, 0, id="no other node tried"),
    ],
)
def test_bad_luck_or_a_broken_study_is_no_reason(length: int, ended: int, failed: int) -> None:
    assert judged(length, ended=ended, failed=failed) == []


def test_zero_turns_quarantine_off() -> None:
    assert judged(20, ended=20, at_least=0) == []


@given(st.integers(5, 20), st.integers(1, 20), st.data())
def test_a_longer_streak_is_never_judged_milder_and_failing_others_never_harder(
    length: int, ended: int, data: st.DataObject
) -> None:
    failed = data.draw(st.integers(0, ended))
    if judged(length, ended=ended, failed=failed):
        assert judged(length + 1, ended=ended, failed=failed)
        assert failed == 0 or judged(length, ended=ended, failed=failed - 1)
