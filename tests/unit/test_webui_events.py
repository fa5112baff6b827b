"""Live pages: what the first event of a stream contains, and that no reading outlives the change that overtook it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, cast

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.webui.event_stream import EventStream
from highnoon.webui.study_repository import StudyRepository


class Studies:
    """What the stream reads of a repository: marks that a test changes, and the names that were invalidated."""

    def __init__(self, **marks: int) -> None:
        self.marks = marks
        self.invalidated: list[str] = []
        self.is_away = False

    def has_ledger(self) -> bool:
        if self.is_away:
            raise ServiceUnavailable("the database is away")
        return True

    def queries(self) -> Studies:
        return self

    def change_marks(self) -> dict[str, tuple[object, ...]]:
        return {name: (mark,) for name, mark in self.marks.items()}

    def catalogue(self) -> list[Any]:
        return []

    def invalidate(self, name: str) -> None:
        self.invalidated.append(name)


def event_of(text: str) -> tuple[str, Any]:
    lines = dict(line.split(": ", 1) for line in text.strip().splitlines())
    return lines["event"], json.loads(lines["data"])


async def next_event(events: AsyncIterator[str]) -> tuple[str, Any]:
    return event_of(await anext(events))


def test_page_that_was_rendered_before_the_first_reading_learns_of_it() -> None:
    async def listen() -> None:
        studies, rendered_at = Studies(digits=1), time.time()
        stream = EventStream(cast(StudyRepository, studies))
        name, data = await next_event(stream.stream())
        assert name == "hello"
        assert data["changed_at"] >= round(rendered_at, 3), "what changed before the reading may be missing in the page"
        assert studies.invalidated == ["digits"]
        await stream.stop()

    asyncio.run(listen())


def test_page_that_is_newer_than_the_last_change_need_not_fetch_again() -> None:
    async def listen() -> None:
        studies = Studies(digits=1, other=1)
        stream = EventStream(cast(StudyRepository, studies))
        first = stream.stream()
        await next_event(first)
        await asyncio.sleep(0.01)
        rendered_at = time.time()
        _, data = await next_event(stream.stream())
        assert data["changed_at"] < rendered_at

        studies.marks["digits"] = 2
        assert await next_event(first) == ("change", ["digits"])
        _, data = await next_event(stream.stream())
        assert data["changed_at"] >= round(rendered_at, 3)
        await stream.stop()

    asyncio.run(listen())


def test_page_that_connects_during_an_outage_learns_of_it_and_of_its_end() -> None:
    async def listen() -> None:
        studies = Studies(digits=1)
        stream = EventStream(cast(StudyRepository, studies))
        first, second = stream.stream(), stream.stream()
        assert (await next_event(first))[0] == "hello"
        studies.is_away = True
        assert await next_event(first) == ("outage", "the database is away")

        assert (await next_event(second))[0] == "hello"
        assert await next_event(second) == ("outage", "the database is away")
        studies.is_away = False
        assert await next_event(first) == await next_event(second) == ("change", [])
        third = stream.stream()
        assert (await next_event(third))[0] == "hello"
        studies.marks["digits"] = 2
        assert await next_event(third) == ("change", ["digits"])
        await stream.stop()

    asyncio.run(listen())


def test_page_that_connects_after_all_others_have_left_learns_of_no_old_outage() -> None:
    async def listen() -> None:
        studies = Studies(digits=1)
        studies.is_away = True
        stream = EventStream(cast(StudyRepository, studies))
        first = stream.stream()
        assert [await next_event(first), await next_event(first)] == [
            ("hello", {"changed_at": 0}),
            ("outage", "the database is away"),
        ]
        await first.aclose()  # type: ignore[attr-defined]
        assert stream._task is not None
        await stream._task

        studies.is_away = False
        second = stream.stream()
        assert (await next_event(second))[0] == "hello"
        studies.marks["digits"] = 2
        assert await next_event(second) == ("change", ["digits"])
        await stream.stop()

    asyncio.run(listen())
