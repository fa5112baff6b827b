"""Live pages: one reading of the ledger per second for all of them, and a server-sent event for what changed.

An event only names the studies that changed; the page fetches what it shows. A lost event costs nothing: the next one,
or a reconnect, brings the page up to date. The first event has the time of the last change, so that a page that was
rendered before it, but connected after it, fetches again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from highnoon.shared.domain.errors import HighNoonError
from highnoon.webui.study_repository import StudyRepository

_PERIOD_S = 1.0
_KEEP_ALIVE_S = 15.0
_FIRST_READING_S = 5.0
_MOST_LISTENERS = 200

_log = logging.getLogger("highnoon.webui")

StudyStates = dict[str, tuple[object, ...]]
"""By study: a value that changes whenever the study did."""


class EventStream:
    """Watches the studies while at least one page is connected."""

    def __init__(self, repository: StudyRepository) -> None:
        self._repository = repository
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._is_over = False
        self._task: asyncio.Task[None] | None = None
        self._known: StudyStates | None = None
        self._has_read = asyncio.Event()
        self._changed_at = 0.0
        self._outage: str | None = None
        """The event about the outage that the last reading met."""

    @property
    def is_full(self) -> bool:
        """Whether there are as many listeners as one process should have."""
        return len(self._listeners) >= _MOST_LISTENERS

    async def stream(self) -> AsyncIterator[str]:
        """Server-sent events until the listener disconnects."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=100)
        self._listeners.add(queue)
        if self._task is None or self._task.done():
            self._has_read.clear()
            self._outage = None  # of an earlier watch
            self._task = asyncio.create_task(self._watch())
        if self._outage is not None:  # was published before this listener came
            queue.put_nowait(self._outage)
        try:
            # What changes from the first reading on is published; what changed before it is in `changed_at`.
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._has_read.wait(), _FIRST_READING_S)
            yield f'retry: 2000\nevent: hello\ndata: {{"changed_at": {self._changed_at:.3f}}}\n\n'
            while not self._is_over:
                try:
                    event = await asyncio.wait_for(queue.get(), _KEEP_ALIVE_S)
                except asyncio.TimeoutError:
                    event = ": still here\n\n"
                if event is not None:
                    yield event
        finally:
            self._listeners.discard(queue)

    def end(self) -> None:
        """Ends all streams, so that a server need not wait for them. In the server's own thread."""
        self._is_over = True
        self._has_read.set()
        for queue in self._listeners:
            with suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    async def stop(self) -> None:
        """Ends the watch."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        self._known = None
        while self._listeners:
            try:
                now = await run_in_threadpool(self._read)
            except HighNoonError as error:
                if self._outage is None:
                    self._outage = _event("outage", str(error))
                    self._publish(self._outage)
                self._known = None
            except Exception:
                _log.exception("action=watch_failed")
            else:
                changed = self._notice(now)
                if changed or self._outage is not None:
                    self._publish(_event("change", changed))
                self._outage = None
            self._has_read.set()
            await asyncio.sleep(_PERIOD_S)

    def _notice(self, now: StudyStates) -> list[str]:
        """The names of the studies that have changed since the last reading; none at the first, which may hide some."""
        before, self._known = self._known, now
        names = {**(before or {}), **now}
        changed = [name for name in names if before is None or before.get(name) != now.get(name)]
        for name in changed:
            self._repository.invalidate(name)
        if changed:
            self._changed_at = time.time()
        return changed if before is not None else []

    def _read(self) -> StudyStates:
        repository = self._repository
        found: StudyStates = repository.queries().change_marks() if repository.has_ledger() else {}
        for entry in repository.catalogue():
            if entry.name not in found:
                found[entry.name] = (entry,)
        return found

    def _publish(self, text: str) -> None:
        for queue in self._listeners:
            # A listener that does not read misses events; the next one that it reads is enough.
            with suppress(asyncio.QueueFull):
                queue.put_nowait(text)


def _event(name: str, about: object) -> str:
    return f"event: {name}\ndata: {json.dumps(about)}\n\n"
