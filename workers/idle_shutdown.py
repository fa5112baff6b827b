"""When a node that was started with `--until-empty` has nothing left to do: nothing waits, is queued or runs for it.

A node of a batch system should give its machine back. What a neighbour still runs counts as well: should that node
die, its trials wait again. What waits in a paused study does not: nobody knows for how long. Asks the ledger at each
beat; the agent ends the node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from highnoon.shared.store.database import Database
from highnoon.shared.store.pending_work import Work

GRACE_S = 20.0
"""A study that is submitted right after another one finds the node still there."""


class Emptiness:
    """For how long there has been nothing for these resources."""

    def __init__(
        self, database: Database, resources: Sequence[str], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._work = Work(database)
        self._resources = resources
        self._now = now
        self._since: float | None = None

    def lasts(self) -> bool:
        """True once it has been empty for the whole grace. Raises ServiceUnavailable, and then begins to count anew."""
        since, self._since = self._since, None
        if self._work.is_there(self._resources):
            return False
        self._since = self._now() if since is None else since
        return self._now() - self._since >= GRACE_S
