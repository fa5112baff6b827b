"""The pause between two ticks follows the slots: shorter while they run out of messages, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from highnoon.coordinator.service import pause_after

LONGEST_S = 0.1


def test_the_pause_is_halved_while_slots_wait_and_grows_again_when_they_do_not() -> None:
    shorter = pause_after(LONGEST_S, slots_waited=True, tick_s=0.001)
    assert shorter == LONGEST_S / 2
    assert pause_after(shorter, slots_waited=True, tick_s=0.001) == LONGEST_S / 4
    assert pause_after(shorter, slots_waited=False, tick_s=0.001) == LONGEST_S


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 5.0)), min_size=1))
def test_ticks_never_take_more_than_a_fifth_of_the_time_for_it_and_the_pause_is_never_longer(
    ticks: list[tuple[bool, float]],
) -> None:
    pause_s = LONGEST_S
    for slots_waited, tick_s in ticks:
        pause_s = pause_after(pause_s, slots_waited=slots_waited, tick_s=tick_s)
        assert min(LONGEST_S, 4 * tick_s) <= pause_s <= LONGEST_S
