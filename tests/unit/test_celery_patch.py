"""What is changed in Celery: its own classes, driven without a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery.events.dispatcher import EventDispatcher
from celery.worker.consumer import Consumer

from highnoon.workers.celery_patch import send_events_together


class Hub:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, act: Callable[..., None], *arguments: Any) -> None:
        self.later.append(lambda: act(*arguments))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(EventDispatcher, "_publish", lambda self, event, producer, routing_key: found.append(event))
    return found


def test_events_of_many_tasks_are_published_in_one_message(
    monkeypatch: pytest.MonkeyPatch, published: list[Any]
) -> None:
    monkeypatch.setattr(Consumer, "on_send_event_buffered", Consumer.on_send_event_buffered)
    send_events_together()
    consumer, hub = object.__new__(Consumer), Hub()
    consumer.hub = hub
    consumer.event_dispatcher = EventDispatcher(
        enabled=False, buffer_group=["task"], on_send_buffered=consumer.on_send_event_buffered
    )
    consumer.event_dispatcher.enabled = True

    for _ in range(2):
        for number in range(3):
            consumer.event_dispatcher.send("task-started", uuid=str(number))
        assert published == [] and len(hub.later) == 1, "they wait for each other"
        hub.later.pop()()
        ((*events,),) = published
        assert [event["uuid"] for event in events] == ["0", "1", "2"]
        published.clear()
