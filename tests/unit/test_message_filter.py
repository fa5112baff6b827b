"""What passes to Celery is a RunTrial message and nothing else; the rest is counted, and logged once per second."""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.shared.domain.messages import PROTOCOL_VERSION, RunTrial
from highnoon.workers.message_filter import MessageFilter, rejected_messages
from tests.rubbish import RUBBISH, envelope

QUEUE = b"highnoon.cpu"


def _kwargs(raw: bytes) -> dict[str, Any]:
    kwargs: dict[str, Any] = json.loads(b64decode(json.loads(raw)["body"]))[1]
    return kwargs


def test_message_passes_with_the_values_of_its_trial_and_nothing_else(tmp_path: Path) -> None:
    # Given a message whose headers would delay, limit or redirect the task
    message = envelope({"study": "digits", "ticket": 17, "version": 1, "chord": "x"})
    message["headers"] |= {"eta": "2099-01-01T00:00:00", "timelimit": [1, 1], "compression": "bzip2"}
    message["properties"] |= {"reply_to": "elsewhere", "delivery_tag": ["unhashable"]}

    answer = MessageFilter(tmp_path).accept([QUEUE, json.dumps(message).encode()])

    assert answer is not None and answer[0] == QUEUE
    passed = json.loads(answer[1])
    assert _kwargs(answer[1]) == {"study": "digits", "ticket": 17, "version": 1}
    assert passed["headers"]["id"] == message["headers"]["id"]
    assert passed["headers"]["eta"] is None and passed["headers"]["timelimit"] == [None, None]
    assert "compression" not in passed["headers"] and "reply_to" not in passed["properties"]
    assert isinstance(passed["properties"]["delivery_tag"], str)
    assert rejected_messages(tmp_path) == 0


def test_newer_message_passes_and_is_recognised(tmp_path: Path) -> None:
    newer = {"study": "digits", "ticket": 17, "version": PROTOCOL_VERSION + 1, "weather": "fine"}
    answer = MessageFilter(tmp_path).accept([QUEUE, json.dumps(envelope(newer)).encode()])
    assert answer is not None and RunTrial.from_kwargs(_kwargs(answer[1])).is_newer


def test_timeout_of_brpop_is_no_message(tmp_path: Path) -> None:
    assert MessageFilter(tmp_path).accept(None) is None and rejected_messages(tmp_path) == 0


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_dropped_and_counted(tmp_path: Path, name: str) -> None:
    assert MessageFilter(tmp_path).accept([QUEUE, RUBBISH[name]]) is None
    assert rejected_messages(tmp_path) == 1


def test_log_has_one_line_per_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = [10.0]
    messages = MessageFilter(tmp_path, lambda: clock[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            messages.accept([QUEUE, b"\xff\x00"])
        clock[0] += 1.0
        messages.accept([QUEUE, b"\xff\x00"])
    assert [record.getMessage().split(" bytes=")[0] for record in caplog.records] == [
        "action=message_rejected rejected=1",
        "action=message_rejected rejected=1001",
    ]
    assert rejected_messages(tmp_path) == 1001


def test_count_goes_on_after_a_restart_of_the_pool(tmp_path: Path) -> None:
    MessageFilter(tmp_path).accept([QUEUE, b"x"])
    MessageFilter(tmp_path).accept([QUEUE, b"x"])
    assert rejected_messages(tmp_path) == 2


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_that_can_be_written_raises(raw: bytes) -> None:
    assert MessageFilter(Path("/nonexistent")).accept([QUEUE, raw]) is None


@given(_JSON, st.sampled_from(["headers", "properties", "body", "content-type"]))
def test_envelope_with_any_part_replaced_raises_nothing(value: Any, part: str) -> None:
    message = envelope({"study": "digits", "ticket": 17, "version": 1}) | {part: value}
    MessageFilter(Path("/nonexistent")).accept([QUEUE, json.dumps(message).encode()])


@given(_JSON)
def test_any_body_in_a_good_envelope_is_dropped(value: Any) -> None:
    message = envelope({}) | {"body": b64encode(json.dumps(value).encode()).decode()}
    assert MessageFilter(Path("/nonexistent")).accept([QUEUE, json.dumps(message).encode()]) is None
