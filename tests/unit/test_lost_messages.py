"""A lost message is missing for a whole window; in a busy queue another one is missing at each reading."""

from __future__ import annotations

from highnoon.coordinator.snapshot_reader import LostMessages


def test_message_under_way_at_each_reading_is_not_lost() -> None:
    lost = LostMessages(window_s=5.0)
    assert [lost.add(missing, now_s) for now_s, missing in enumerate([1, 1, 0, 1, 1, 1, 1])] == [0] * 7


def test_messages_missing_for_the_whole_window_are_lost() -> None:
    lost = LostMessages(window_s=5.0)
    assert [lost.add(missing, now_s) for now_s, missing in enumerate([4, 6, 5, 4, 4, 4, 9])] == [0, 0, 0, 0, 0, 4, 4]


def test_messages_sent_again_are_not_counted_a_second_time() -> None:
    lost = LostMessages(window_s=2.0)
    assert [lost.add(missing, now_s) for now_s, missing in enumerate([3, 3, 3, 0, 0])] == [0, 0, 3, 0, 0]


def test_more_messages_than_tickets_count_as_none_missing() -> None:
    lost = LostMessages(window_s=1.0)
    assert [lost.add(missing, now_s) for now_s, missing in enumerate([-2, -2, -2])] == [0, 0, 0]


def test_readings_at_long_intervals_span_the_window() -> None:
    lost = LostMessages(window_s=5.0)
    assert [lost.add(2, now_s) for now_s in (0.0, 60.0)] == [0, 2]
