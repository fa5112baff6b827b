"""A lost message is missing for a whole window; a busy queue is short of another one at each look."""

from __future__ import annotations

from highnoon.coordinator.lost_messages import LastingDeficit


def test_a_message_that_is_under_way_at_each_look_is_not_lost() -> None:
    deficit = LastingDeficit(window_s=5.0)
    assert [deficit.add(missing, now_s) for now_s, missing in enumerate([1, 1, 0, 1, 1, 1, 1])] == [0] * 7


def test_what_is_missing_for_the_whole_window_is_lost() -> None:
    deficit = LastingDeficit(window_s=5.0)
    assert [deficit.add(missing, now_s) for now_s, missing in enumerate([4, 6, 5, 4, 4, 4, 9])] == [0, 0, 0, 0, 0, 4, 4]


def test_once_sent_again_they_are_not_missed_a_second_time() -> None:
    deficit = LastingDeficit(window_s=2.0)
    assert [deficit.add(missing, now_s) for now_s, missing in enumerate([3, 3, 3, 0, 0])] == [0, 0, 3, 0, 0]


def test_more_messages_than_tickets_are_no_deficit() -> None:
    deficit = LastingDeficit(window_s=1.0)
    assert [deficit.add(missing, now_s) for now_s, missing in enumerate([-2, -2, -2])] == [0, 0, 0]


def test_looks_at_long_intervals_still_span_the_window() -> None:
    deficit = LastingDeficit(window_s=5.0)
    assert [deficit.add(2, now_s) for now_s in (0.0, 60.0)] == [0, 2]
