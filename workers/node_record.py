"""The node in the database: its row, its heartbeat, what it has, and the leases of its supervisors that died.

Every method here but `leave` runs in the agent's I/O thread and may wait for the database; the agent's monitor never
does. What attempts have left on the disk is removed in a thread of its own, since no heartbeat may wait for a disk.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from highnoon.shared.domain.errors import RowLocked
from highnoon.shared.domain.states import Cause, WorkerState
from highnoon.shared.memory.cores import usable_cores
from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.memory.kernel_files import KernelFiles
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.database import Database
from highnoon.shared.store.node_queries import NodeQueries
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.studies import Studies
from highnoon.workers.disk import disk_trouble
from highnoon.workers.io_thread import IoThread
from highnoon.workers.leftovers import remove_old_checkpoints, remove_stray_scratch
from highnoon.workers.node import Node, dead_nodes
from highnoon.workers.slot_state import SlotState, SlotStates
from highnoon.workers.telemetry import Telemetry
from highnoon.workers.trial.scratch import remove_unused

_log = logging.getLogger("highnoon.workers.agent")

_LEFTOVERS_EVERY_S = 300.0
_LOCKED_S = 5.0

IDLE_GRACE_S = 20.0
"""A study that is submitted right after another one finds the node still there."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat: the state that the node is to be in, None where the database has no such row."""

    state: WorkerState | None
    is_idle: bool
    trouble: str | None = None


class NodeRecord:
    """One boot of one node. Raises ServiceUnavailable during an outage."""

    def __init__(self, node: Node, slots: SlotStates, *, until_idle: bool) -> None:
        settings = node.settings
        if settings.database_url is None or settings.redis_url is None:
            raise ValueError("a worker needs the addresses of PostgreSQL and Redis")
        self._node = node
        self._slots = slots
        self._database = Database(settings.database_url, at_most=1)
        self._nodes = Nodes(self._database)
        self._broker = Broker(settings.redis_url)
        self._telemetry = Telemetry(node.folder if settings.worker_metrics_port else None)
        self._info = NodeInfo()
        self._leftovers_at = 0.0
        self._leftovers: Future[None] | None = None
        self._disk: IoThread | None = None
        self._locked_at: dict[str, float] = {}
        self._idle = IdleShutdown(self._database, node.resources) if until_idle else None

    def enter(self) -> None:
        """Registers this boot. Raises SchemaMismatch as well: a database of a newer version."""
        node = self._node
        self._database.check_schema()
        self._nodes.enter(node.worker_id, host=node.host, pid=os.getpid(), slots=node.slots, queues=node.resources)
        event(_log, "enter", worker=node.worker_id[:8], host=node.host, slots=node.slots)

    def beat(self) -> Beat:
        """Renews the node's presence, with what it has now. Takes it out of the rotation while its disk is full."""
        trouble = disk_trouble(*self._node.written_folders)
        state = self._nodes.beat(self._node.worker_id, self._info.read())
        move, active, out = partial(self._nodes.move, self._node.worker_id), WorkerState.ACTIVE, WorkerState.QUARANTINED
        if state is active and trouble is not None and move([active], out, trouble):
            state = out
        # By the row, not by what this process remembers: the answer to the first move may have been lost.
        elif state is out and trouble is None and move([out], active, reason_before=f"{Cause.DISK}:"):
            state = active
        return Beat(state, self._idle is not None and self._idle.is_due(), trouble)

    def mark(self, state: WorkerState) -> None:
        """Sets the node's state, if it has a row."""
        self._nodes.mark(self._node.worker_id, state)

    def release(self, state: SlotState) -> None:
        """Takes the lease of a supervisor that died, so that its ticket need not wait for the lease to expire.

        Raises RowLocked, at once where a row of the study was locked a moment ago: a heartbeat may be next.
        """
        locked_at = self._locked_at.get(state.study)
        if locked_at is not None and time.monotonic() - locked_at < _LOCKED_S:
            raise RowLocked(f"another client has locked rows of study {state.study!r}")
        self._release(state, self._node.worker_id)
        self._slots.drop(state)

    def remove_dead_nodes(self) -> int:
        """Ends what nodes whose agent was killed left on this machine: leases, files, folders; how many nodes."""
        dead = {folder.name: SlotStates(folder) for folder in dead_nodes(self._node.folder.parent)}
        # Otherwise its supervisors end at this moment.
        ended = {worker_id: slots for worker_id, slots in dead.items() if slots.none_at_work()}
        self._release_all(ended)
        removed = 0
        for worker_id, slots in ended.items():
            if not slots.orphaned():
                self._nodes.mark(worker_id, WorkerState.GONE)
                shutil.rmtree(self._node.folder.with_name(worker_id), ignore_errors=True)
                removed += 1
        self._remove_leftovers()
        return removed

    def leave(self, within_s: float) -> None:
        """Waits for the removals that are under way. For the monitor, once the I/O thread has ended."""
        if self._disk is not None:
            self._disk.stop(within_s)

    def _release_all(self, nodes: Mapping[str, SlotStates]) -> None:
        """Takes the leases of dead nodes, until a row is locked by another client: a heartbeat waits for this.

        Each locked row costs seconds. The next round begins with the studies whose rows were not.
        """
        orphaned = [(worker_id, state) for worker_id, slots in nodes.items() for state in slots.orphaned()]
        # In another order each time: every ticket of a study has its turn to be the first.
        random.shuffle(orphaned)
        for worker_id, state in sorted(orphaned, key=lambda one: self._locked_at.get(one[1].study, 0.0)):
            try:
                self._release(state, worker_id)
            except RowLocked as error:
                where = {"study": state.study, "ticket": state.ticket, "worker": worker_id[:8]}
                event(_log, "outage", level=logging.WARNING, during="release", error=error, **where)
                return
            nodes[worker_id].drop(state)

    def _remove_leftovers(self) -> None:
        """Begins the next removal once it is due; one at a time."""
        if self._leftovers is not None and self._leftovers.done():
            if (error := self._leftovers.exception()) is not None:
                where = {"worker": self._node.worker_id[:8], "during": "remove_leftovers"}
                event(_log, "outage", level=logging.WARNING, error=error, **where)
            self._leftovers = None
        if self._leftovers is None and time.monotonic() >= self._leftovers_at:
            self._leftovers_at = time.monotonic() + _LEFTOVERS_EVERY_S
            self._leftovers = self._disk_thread().submit(self._remove_leftovers_now)

    def _remove_leftovers_now(self) -> None:
        home = self._node.settings.home
        remove_stray_scratch(home)
        # A connection of its own, which the heartbeat never waits for.
        database = Database(self._database.url, at_most=1)

        def is_over(study: str) -> bool | None:
            record = Studies(database).find(study)
            return None if record is None else record.is_over

        try:
            remove_old_checkpoints(home, is_over)
        finally:
            database.close()

    def _disk_thread(self) -> IoThread:
        """Begins with its first use: a thread must not exist before the agent has blocked its signals."""
        if self._disk is None:
            self._disk = IoThread()
        return self._disk

    def _release(self, state: SlotState, worker_id: str) -> None:
        try:
            self._reap(state, worker_id)
        except RowLocked:
            self._locked_at[state.study] = time.monotonic()
            raise
        if state.work_dir is not None:
            self._disk_thread().submit(partial(remove_unused, Path(state.work_dir)))

    def _reap(self, state: SlotState, worker_id: str) -> None:
        attempts = Attempts(self._database)
        attempt = state.attempt
        if attempt is None:
            # It may have died between the grant of its lease and the note of it.
            attempt = attempts.held(state.ticket, worker_id=worker_id, pid=state.pid)
        if attempt is not None:
            message = f"its supervisor (pid {state.pid} on {self._node.host}) died"
            disposition = attempts.reap(state.ticket, attempt, message=message, only_expired=False)
            if disposition is not None:
                self._telemetry.lost(disposition)
            event(
                _log,
                "reap",
                level=logging.WARNING,
                study=state.study,
                ticket=state.ticket,
                attempt=attempt,
                worker=worker_id[:8],
                disposition=disposition or "not_held",
            )
            self._broker.notify()


class NodeInfo:
    """What the node has, for people: memory, cores, GPUs, version. Decides nothing.

    {"version", "cpus", "memory_total_bytes", "memory_used_bytes",
     "gpus": [{"uuid", "name", "memory_total_bytes", "memory_used_bytes"}, ...]}
    """

    def __init__(self, root: Path = Path("/"), gpus: Gpus | None = None) -> None:
        self._gpus = Gpus() if gpus is None else gpus
        self._poller = MemoryPoller(root=root, gpus=self._gpus)
        self._files = KernelFiles(root)

    def read(self) -> dict[str, Any]:
        """The values now, as JSON; what cannot be read is None. Never raises. A few small files, one driver call."""
        memory = self._poller.node().tightest
        return {
            "version": _version(),
            "cpus": usable_cores(self._files),
            "memory_total_bytes": memory.limit_bytes if memory else None,
            "memory_used_bytes": memory.used_bytes if memory else None,
            "gpus": [asdict(device) for device in self._gpus.devices()],
        }


class IdleShutdown:
    """When a node that was started with `--until-empty` ends: nothing waits, is queued or runs for its resources.

    A node of a batch system should give its machine back. What another node still runs counts as well: should that
    node die, its trials wait again. What waits in a paused study does not count: for how long is not known.
    """

    def __init__(
        self, database: Database, resources: Sequence[str], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._queries = NodeQueries(database)
        self._resources = resources
        self._now = now
        self._idle_since: float | None = None

    def is_due(self) -> bool:
        """True once there was no work for the whole grace. Raises ServiceUnavailable, and then counts from zero."""
        since, self._idle_since = self._idle_since, None
        if self._queries.has_work(self._resources):
            return False
        self._idle_since = self._now() if since is None else since
        return self._now() - self._idle_since >= IDLE_GRACE_S


def _version() -> str | None:
    try:
        return version("highnoon-hpo")
    except PackageNotFoundError:
        return None
