"""Reports that follow each other closely are sent together, in order, and none waits for a further call."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from highnoon.shared.objective.held_events import HeldEvents
from highnoon.shared.objective.trial_pipe import Event, Pipe, PipeChannel

SOON_S = 10.0
"""Not a bound of the product: a busy machine."""


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    mine, other = (Pipe(end) for end in socket.socketpair())
    yield mine, other
    mine.close()
    other.close()


def received(pipe: Pipe, count: int) -> list[Event]:
    events: list[Event] = []
    while len(events) < count:
        come = pipe.receive(SOON_S)
        assert come, f"{len(events)} of {count} events"
        events += come
    return events


def steps(events: list[Event]) -> list[int]:
    return [event["step"] for event in events]


def test_the_first_report_is_sent_at_once_and_the_next_ones_without_a_further_call(ends: tuple[Pipe, Pipe]) -> None:
    trial, supervisor = ends
    channel = PipeChannel(trial)
    channel.report(0.5, 0)
    assert steps(supervisor.receive(0.0)) == [0]
    for step in range(1, 6):
        channel.report(0.5, step)
    assert steps(received(supervisor, 5)) == [1, 2, 3, 4, 5]
    # The thread that sends them goes on
    for step in range(6, 9):
        channel.report(0.5, step)
    assert steps(received(supervisor, 3)) == [6, 7, 8]


def test_what_is_held_goes_before_whatever_is_sent_after_it(ends: tuple[Pipe, Pipe]) -> None:
    trial, supervisor = ends
    events = HeldEvents(trial)
    with events.lock:
        events.hold({"event": "report", "step": 0})
        for step in (1, 2):
            events.hold({"event": "report", "step": step})
        assert steps(supervisor.receive(0.0)) == [0], "held while the lock is"
        events.send({"event": "report", "step": 3})
        assert steps(received(supervisor, 3)) == [1, 2, 3]


def test_report_is_sent_at_once_where_no_thread_can_start(
    ends: tuple[Pipe, Pipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    trial, supervisor = ends
    channel = PipeChannel(trial)
    for step in range(3):
        channel.report(0.5, step)
    assert steps(received(supervisor, 3)) == [0, 1, 2]


def test_forked_child_sends_nothing_that_its_parent_holds(ends: tuple[Pipe, Pipe]) -> None:
    trial, supervisor = ends
    events = HeldEvents(trial)
    with events.lock:
        events.hold({"event": "report", "step": 0})
        events.hold({"event": "report", "step": 1})
        child = os.fork()
        if child == 0:
            # Its own lock is free, and nothing is held
            with events.lock:
                events.send({"event": "report", "step": 99})
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert steps(received(supervisor, 3)) == [0, 99, 1]
