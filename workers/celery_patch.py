"""Celery's recycled children come back at once, not five seconds later.

billiard's pool sees a child's descriptors close before the child is a zombie, misses it, and waits for its
five-second maintenance timer (celery issue 9588, open in 5.7). A second look a few milliseconds later finds it.
Remove this file when Celery does so itself; the contract test tells.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool

_LOOK_AGAIN_S = 0.01


def look_again_for_ended_children() -> None:
    """Patches the pool class of this process. Call once in the Celery parent, before the worker starts."""
    original = asynpool.AsynPool._event_process_exit

    def _event_process_exit(self: Any, hub: Any, proc: Any) -> None:
        original(self, hub, proc)
        if proc in self._pool:
            hub.call_later(_LOOK_AGAIN_S, _maintain_until_gone, self, hub, proc)

    asynpool.AsynPool._event_process_exit = _event_process_exit


def _maintain_until_gone(pool: Any, hub: Any, proc: Any) -> None:
    pool.maintain_pool()
    if proc in pool._pool:
        hub.call_later(_LOOK_AGAIN_S, _maintain_until_gone, pool, hub, proc)
