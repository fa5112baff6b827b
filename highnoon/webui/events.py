"""Live pages: one look at the ledger per second for all of them together, and a server-sent event for what changed.

An event only says which study changed; the page fetches what it shows. A lost event costs nothing: the next one, or a
reconnect, brings the page up to date.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from highnoon.shared.domain.errors import HighNoonError
from highnoon.webui.library import Library

_PERIOD_S = 1.0
_KEEP_ALIVE_S = 15.0
_MOST_LISTENERS = 200

_log = logging.getLogger("highnoon.webui")

Pulse = dict[str, tuple[object, ...]]


class Pulses:
    """Listens for everybody while anybody listens."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._is_over = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether there are as many listeners as one process should have."""
        return len(self._listeners) >= _MOST_LISTENERS

    async def stream(self) -> AsyncIterator[str]:
        """Server-sent events until the listener goes away."""
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
        before: Pulse | None = None
        away = False
        while self._listeners:
            try:
                now = await run_in_threadpool(self._look)
            except HighNoonError as error:
                if not away:
                    self._tell("outage", str(error))
                away, before = True, None
            except Exception:
                _log.exception("action=watch_failed")
            else:
                changed = [] if before is None else _changed(before, now)
                for name in changed:
                    self._library.forget(name)
                if changed or away:
                    self._tell("change", changed)
                before, away = now, False
            await asyncio.sleep(_PERIOD_S)

    def _look(self) -> Pulse:
        library = self._library
        found: Pulse = library.overview().pulse() if library.has_ledger() else {}
        for entry in library.access().store.catalogue():
            if entry.name not in found:
                found[entry.name] = tuple(sorted((str(state), count) for state, count in entry.by_state.items()))
        return found

    def _tell(self, event: str, about: object) -> None:
        text = f"event: {event}\ndata: {json.dumps(about)}\n\n"
        for queue in self._listeners:
            # One that does not read misses events; the next that it takes tells it enough.
            with suppress(asyncio.QueueFull):
                queue.put_nowait(text)


def _changed(before: Pulse, now: Pulse) -> list[str]:
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]
