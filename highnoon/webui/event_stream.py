"""Live pages: one reading of the ledger per second for all of them, and a server-sent event for what changed.

An event only names the studies that changed; the page fetches what it shows. A lost event costs nothing: the next one,
or a reconnect, brings the page up to date.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from highnoon.shared.domain.errors import HighNoonError
from highnoon.webui.study_repository import StudyRepository

_PERIOD_S = 1.0
_KEEP_ALIVE_S = 15.0
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

    @property
    def is_full(self) -> bool:
        """Whether there are as many listeners as one process should have."""
        return len(self._listeners) >= _MOST_LISTENERS

    async def stream(self) -> AsyncIterator[str]:
        """Server-sent events until the listener disconnects."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=100)
        self._listeners.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            yield "retry: 2000\nevent: hello\ndata: {}\n\n"
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
        before: StudyStates | None = None
        away = False
        while self._listeners:
            try:
                now = await run_in_threadpool(self._read)
            except HighNoonError as error:
                if not away:
                    self._publish("outage", str(error))
                away, before = True, None
            except Exception:
                _log.exception("action=watch_failed")
            else:
                names = () if before is None else {**before, **now}
                changed = [name for name in names if (before or {}).get(name) != now.get(name)]
                for name in changed:
                    self._repository.invalidate(name)
                if changed or away:
                    self._publish("change", changed)
                before, away = now, False
            await asyncio.sleep(_PERIOD_S)

    def _read(self) -> StudyStates:
        repository = self._repository
        found: StudyStates = repository.queries().change_marks() if repository.has_ledger() else {}
        for entry in repository.access().store.catalogue():
            if entry.name not in found:
                found[entry.name] = tuple(sorted((str(state), count) for state, count in entry.by_state.items()))
        return found

    def _publish(self, event: str, about: object) -> None:
        text = f"event: {event}\ndata: {json.dumps(about)}\n\n"
        for queue in self._listeners:
            # A listener that does not read misses events; the next one that it reads is enough.
            with suppress(asyncio.QueueFull):
                queue.put_nowait(text)
