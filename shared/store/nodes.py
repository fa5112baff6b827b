"""Presence of workers, and the leader row. Grants no right to run anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import BindParameter, Integer, Text, bindparam, cast, delete, exists, func, insert, or_, select, update

from highnoon.shared.domain.states import WorkerState
from highnoon.shared.store.audit import record
from highnoon.shared.store.database import Database, IntegrityError
from highnoon.shared.store.schema import attempts, db_now, leader, workers

if TYPE_CHECKING:
    from highnoon.shared.runtime.settings import Settings

_PRESENCE_MISSES = 4
"""A worker that missed so many beats has no slots to count on."""


def silent_too_long_s(settings: Settings) -> float:
    """After so many seconds without a beat a worker counts as gone."""
    return settings.presence_s * _PRESENCE_MISSES


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One node's agent as the ledger knows it; `silent_s` is the age of its last beat.

    `facts` is what it last reported of its machine: memory, cores, GPUs, version.
    """

    id: str
    host: str
    pid: int
    slots: int
    queues: tuple[str, ...]
    state: WorkerState
    silent_s: float
    state_reason: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def open_slots(present: Iterable[Worker]) -> int:
    """Trials that could run at a time: a worker that drains or is in quarantine takes none."""
    return sum(worker.slots for worker in present if worker.state is WorkerState.ACTIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How many workers there are, and their slots by queue.

    `shared`: of each queue's slots, those that serve another one as well, by that one.
    """

    workers: int
    slots: Mapping[str, int]
    shared: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leadership:
    """The leader row after a bid: whether it is ours, and since which term."""

    mine: bool
    term: int


class Nodes:
    """Statements about agents and coordinators."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def enter(self, worker_id: str, *, host: str, pid: int, slots: int, queues: Sequence[str]) -> None:
        """Registers a node's agent as active. Repeating it is harmless: the first answer may have been lost."""
        node = insert(workers).values(
            id=worker_id,
            host=host,
            pid=pid,
            slots=slots,
            queues=list(queues),
            state=WorkerState.ACTIVE,
            started_at=db_now(),
            seen_at=db_now(),
        )
        with suppress(IntegrityError):
            self._db.changed(node)

    def beat(self, worker_id: str, facts: Mapping[str, Any] | None = None) -> WorkerState | None:
        """Renews the node's presence and facts. Returns the state that others want it in, None without a row."""
        changed = {} if facts is None else {"facts": dict(facts)}
        statement = update(workers).where(workers.c.id == worker_id).values(seen_at=db_now(), **changed)
        rows = self._db.rows(statement.returning(workers.c.state))
        return WorkerState(rows[0].state) if rows else None

    def mark(self, worker_id: str, state: WorkerState, reason: str | None = None) -> None:
        """Sets a worker's state: draining, quarantined, gone, or active again; and why, for people."""
        self._db.changed(update(workers).where(workers.c.id == worker_id).values(state=state, state_reason=reason))

    def move(
        self,
        worker_id: str,
        before: Collection[WorkerState],
        after: WorkerState,
        reason: str | None = None,
        *,
        reason_before: str = "",
    ) -> bool:
        """As `mark`, only from one of the states `before`: False when others have moved it meanwhile.

        With `reason_before` only where the present reason begins with it.
        """
        of_worker = [workers.c.id == worker_id, workers.c.state.in_(before)]
        if reason_before:
            of_worker.append(workers.c.state_reason.startswith(reason_before, autoescape=True))
        return self._db.changed(update(workers).where(*of_worker).values(state=after, state_reason=reason)) == 1

    def reinstate(self, worker_id: str) -> bool:
        """Ends a quarantine; attempts from before do not count any more. False when it is not in quarantine."""
        active = {"state": WorkerState.ACTIVE, "state_reason": None, "reinstated_at": db_now()}
        return self._steer("reinstate", worker_id, (WorkerState.QUARANTINED,), active)

    def drain(self, worker_id: str, reason: str) -> bool:
        """It takes nothing new, and leaves. False when it was neither active nor in quarantine."""
        draining = {"state": WorkerState.DRAINING, "state_reason": reason}
        return self._steer("drain", worker_id, (WorkerState.ACTIVE, WorkerState.QUARANTINED), draining)

    def _steer(self, action: str, worker_id: str, before: Collection[WorkerState], after: Mapping[str, Any]) -> bool:
        """What a person does to a node."""
        of_worker = workers.c.id == worker_id, workers.c.state.in_(before)
        with self._db.transaction() as connection:
            host = connection.scalar(update(workers).where(*of_worker).values(**after).returning(workers.c.host))
            if host is not None:
                record(connection, action, worker=worker_id, host=host)
        return host is not None

    def workers(self, *, silent_for_s: float) -> list[Worker]:
        """The workers that have not left and were seen within `silent_for_s` seconds."""
        silent = (db_now() - workers.c.seen_at).label("silent_s")
        statement = select(workers, silent).where(workers.c.state != WorkerState.GONE, silent < silent_for_s)
        return [
            Worker(
                id=row.id,
                host=row.host,
                pid=row.pid,
                slots=row.slots,
                queues=tuple(row.queues),
                state=WorkerState(row.state),
                silent_s=row.silent_s,
                state_reason=row.state_reason,
                facts=row.facts or {},
            )
            for row in self._db.rows(statement.order_by(workers.c.started_at))
        ]

    def present(self, settings: Settings) -> list[Worker]:
        """The workers that are there: they have not left, and their last beat is not too old."""
        return self.workers(silent_for_s=silent_too_long_s(settings))

    def capacity(self, *, silent_for_s: float) -> Capacity:
        """What the active workers that were seen within `silent_for_s` seconds have together."""
        # A few rows for any number of workers: a tick reads them.
        rows = self._db.rows(_CAPACITY, silent_for_s=silent_for_s)
        slots: Counter[str] = Counter()
        shared: dict[str, Counter[str]] = {}
        for written, _, count in rows:
            queues = json.loads(written)
            slots.update(dict.fromkeys(queues, int(count)))
            for queue in queues:
                others = dict.fromkeys((other for other in queues if other != queue), int(count))
                shared.setdefault(queue, Counter()).update(others)
        return Capacity(workers=sum(row[1] for row in rows), slots=slots, shared=shared)

    def active_ids(self, *, silent_for_s: float) -> list[str]:
        """The ids of these workers."""
        return [row.id for row in self._db.rows(_ACTIVE, silent_for_s=silent_for_s)]

    def remove_silent(self, *, for_s: float) -> int:
        """Removes the rows of nodes that are gone: silent for so long, and without an attempt that is still open."""
        runs = exists().where(attempts.c.worker_id == workers.c.id, attempts.c.ended_at.is_(None))
        return self._db.changed(delete(workers).where(workers.c.seen_at < db_now() - for_s, ~runs))

    def lead(self, holder: str, *, ttl_s: float) -> Leadership:
        """Bids for the leader row: kept if ours, taken if expired, or from before the clock went back.

        It saves work, and is never a fence.
        """
        if won := self._db.rows(_BID, bidder=holder, ttl=ttl_s):
            return Leadership(mine=True, term=won[0].term)
        if rows := self._db.rows(select(leader.c.term).where(leader.c.id == 1)):
            return Leadership(mine=False, term=rows[0].term)
        # The first bid of all; of two at once one loses and bids again.
        with suppress(IntegrityError):
            self._db.changed(insert(leader).values(id=1, holder=holder, term=1, expires_at=db_now() + ttl_s))
        return self.lead(holder, ttl_s=ttl_s)

    def step_down(self, holder: str) -> None:
        """Releases the leader row, so that the next coordinator need not wait until it expires."""
        self._db.changed(update(leader).where(leader.c.holder == holder).values(expires_at=0.0))


_is_active = (workers.c.state == WorkerState.ACTIVE, db_now() - workers.c.seen_at < bindparam("silent_for_s"))
_QUEUES = cast(workers.c.queues, Text)

# Of every tick: building a statement takes longer than PostgreSQL needs for it.
_CAPACITY = select(_QUEUES, func.count(), func.sum(workers.c.slots)).where(*_is_active).group_by(_QUEUES)
_ACTIVE = select(workers.c.id).where(*_is_active)
_BIDDER: BindParameter[str] = bindparam("bidder")
# Two coordinators at once are harmless. None at all, for an hour after a clock was set back by an hour, is not.
_IS_OF_ANOTHER_TIME = leader.c.expires_at > db_now() + 10 * bindparam("ttl")
_BID = (
    update(leader)
    .where(leader.c.id == 1, or_(leader.c.holder == _BIDDER, leader.c.expires_at < db_now(), _IS_OF_ANOTHER_TIME))
    .values(holder=_BIDDER, term=leader.c.term + cast(leader.c.holder != _BIDDER, Integer))
    .values(expires_at=db_now() + bindparam("ttl"))
    .returning(leader.c.term)
)
