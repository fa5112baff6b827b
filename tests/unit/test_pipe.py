"""The pipe between trial process and supervisor: whole lines, torn lines, questions and interruptions."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.shared.domain.errors import TrialCancelled, TrialStopped
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome, ParamCount, Report
from highnoon.shared.objective.trial_events import WRONG_EVENT, count_of, outcome_of, question_of, report_of, setting_of
from highnoon.shared.objective.trial_pipe import PIPE_VERSION, Event, Pipe, PipeChannel
from highnoon.workers.kernel import socket_pair


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    ours, theirs = socket_pair()
    pipes = Pipe(ours), Pipe(theirs)
    yield pipes
    for pipe in pipes:
        pipe.close()


def test_a_trial_says_hello_reports_and_ends(ends: tuple[Pipe, Pipe]) -> None:
    supervisor, trial = ends
    channel = PipeChannel(trial)
    channel.hello()
    channel.report_params(1200, 300)
    channel.report(0.5, 3)
    outcome = Outcome(ending=Ending.COMPLETED, value=0.5)
    channel.result(outcome)

    hello, params, report, result = supervisor.receive(1.0)
    assert hello == {"event": "hello", "version": PIPE_VERSION}
    assert count_of(params) == ParamCount(total=1200, active=300)
    assert report_of(report) == Report(step=3, value=0.5)
    assert Outcome.from_json(result["outcome"]) == outcome


def test_a_question_waits_for_its_own_answer(ends: tuple[Pipe, Pipe]) -> None:
    supervisor, trial = ends
    channel = PipeChannel(trial)
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(channel.should_prune()))
    asking.start()
    (question,) = supervisor.receive(5.0)
    supervisor.send({"event": "answer", "id": question["id"] - 1, "answer": False})
    supervisor.send({"event": "answer", "id": question["id"], "answer": True})
    asking.join(60.0)
    assert answers == [True]


def test_a_suggestion_is_answered_refused_or_interrupted(ends: tuple[Pipe, Pipe]) -> None:
    ours, theirs = ends
    channel = PipeChannel(theirs)

    def answered(*lines: Event) -> None:
        (question,) = ours.receive(5.0)
        assert question_of(question) == {"question": "suggest", "name": "x", "domain": "{}"}
        for line in lines:
            ours.send({"id": question["id"], **line})

    for lines, result in (
        ([{"event": "answer", "answer": {"value": 0.5}}], 0.5),
        ([{"event": "answer", "answer": {"error": "no such domain"}}], ValueError),
        ([{"event": "stop", "reason": "drain"}, {"event": "answer", "answer": False}], TrialStopped),
    ):
        supervisor = threading.Thread(target=answered, args=lines)
        supervisor.start()
        if isinstance(result, float):
            assert channel.suggest("x", "{}") == result
        else:
            with pytest.raises(result):
                channel.suggest("x", "{}")
        supervisor.join()
    ours.close()
    with pytest.raises(TrialStopped):
        PipeChannel(theirs).suggest("x", "{}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "highnoon:loss", "kind": "user_attr", "value": 1},
        {"key": "a\0", "kind": "user_attr", "value": 1},
        {"key": 3, "kind": "user_attr", "value": 1},
        {"key": "a", "kind": "constraint", "value": "much"},
        {"key": "a", "kind": "constraint", "value": True},
        {"key": "a", "kind": "constraint", "value": None},
        {"key": "a", "kind": "constraint"},
        {"key": "a", "kind": "system", "value": 1},
    ],
)
def test_a_setting_that_cannot_be_stored_is_refused(wrong: Event) -> None:
    with pytest.raises(WRONG_EVENT):
        setting_of(wrong)
    for question in ({"question": "suggest", "name": 1, "domain": "{}"}, {"question": "suggest"}, {}):
        with pytest.raises(WRONG_EVENT):
            question_of(question)


@pytest.mark.parametrize(
    ("event", "signal"),
    [({"event": "stop", "reason": "drain"}, TrialStopped), ({"event": "cancel", "reason": ""}, TrialCancelled)],
)
def test_an_interruption_is_raised_at_every_later_call(
    ends: tuple[Pipe, Pipe], event: dict[str, str], signal: type[Exception]
) -> None:
    supervisor, trial = ends
    channel = PipeChannel(trial)
    supervisor.send_nowait(event)
    for _ in range(2):
        with pytest.raises(signal):
            channel.report(1.0, 0)
        with pytest.raises(signal):
            channel.report_params(5)


def test_a_torn_line_is_no_event(ends: tuple[Pipe, Pipe]) -> None:
    supervisor, trial = ends
    trial._socket.sendall(b'{"event": "report", "step": 1, "value": 0.1}\n{"event": "resu')
    trial._socket.shutdown(1)
    assert [event["event"] for event in supervisor.receive(1.0)] == ["report"]
    assert supervisor.receive(1.0) == []
    assert supervisor.closed


def test_a_supervisor_that_is_gone_does_not_raise_in_the_trial(ends: tuple[Pipe, Pipe]) -> None:
    supervisor, trial = ends
    supervisor._socket.shutdown(2)
    channel = PipeChannel(trial)
    channel.report(1.0, 0)
    assert channel.should_prune() is False


def test_a_trial_that_does_not_listen_does_not_block_its_supervisor(ends: tuple[Pipe, Pipe]) -> None:
    supervisor, _ = ends
    for _ in range(100_000):
        supervisor.send_nowait({"event": "stop", "reason": "drain"})


@pytest.mark.parametrize("line", [b"hello", b"[]", b"{}", b'{"event": 1}', b"\xff", b"[" * 100_000])
def test_line_that_is_no_event_is_the_last_that_is_read(ends: tuple[Pipe, Pipe], line: bytes) -> None:
    supervisor, trial = ends
    trial._socket.sendall(b'{"event": "hello", "version": 1}\n' + line + b'\n{"event": "hello", "version": 1}\n')
    events: list[str] = []
    while not supervisor.closed:
        events += [event["event"] for event in supervisor.receive(1.0)]
    assert events == ["hello", "fault"]
    assert supervisor.receive(0.0) == []


def test_line_in_several_portions_is_read_whole_without_waiting(ends: tuple[Pipe, Pipe]) -> None:
    supervisor, trial = ends
    trial.send({"event": "set", "value": "x" * 100_000})
    (event,) = supervisor.receive(0.0)
    assert len(event["value"]) == 100_000


def test_line_without_end_is_bounded(ends: tuple[Pipe, Pipe]) -> None:
    supervisor, trial = ends
    sending = threading.Thread(target=lambda: trial.send({"event": "report", "text": "x" * 10_000_000}), daemon=True)
    sending.start()
    events: list[Event] = []
    while not supervisor.closed:
        events += supervisor.receive(1.0)
    (fault,) = events
    assert fault["event"] == "fault" and len(fault["reason"]) < 300
    supervisor._socket.shutdown(2)
    sending.join(60.0)


_ANY = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        7,
        2**70,
        0.5,
        math.nan,
        math.inf,
        -math.inf,
        "",
        "text",
        "1",
        "nan",
        "x" * 9000,
        "a\0b",
        "\ud800",
    ]
    + [[], [1], {}, {"a": 1}]
    + [str(ending) for ending in Ending]
)
_NAMES = ("ending", "value", "loss", "params_count", "active_params", "constraint", "cause", "message", "traceback")


@given(st.dictionaries(st.sampled_from(_NAMES), _ANY))
def test_result_is_refused_or_can_be_stored(outcome: dict[str, Any]) -> None:
    try:
        read = outcome_of({"event": "result", "outcome": outcome})
    except WRONG_EVENT:
        return
    assert isinstance(read.message, str) and isinstance(read.traceback, str) and "\0" not in read.message
    assert read.cause is None or (isinstance(read.cause, str) and len(read.cause) <= 40)
    assert all(number is None or not math.isnan(number) for number in (read.value, read.loss, read.constraint))
    assert read.params_count is None or 1 <= read.params_count < 2**63
    json.dumps(read.to_json(), allow_nan=False)
