"""The node in the database: its row, its heartbeat, what it has, and the leases of its supervisors that died.

Every method here runs in the agent's I/O thread and may wait for the database; the agent's monitor never does.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from highnoon.shared.domain.states import WorkerState
from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.database import Database
from highnoon.shared.store.node_queries import NodeQueries
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.studies import Studies
from highnoon.workers.disk import disk_trouble
from highnoon.workers.node import Node, dead_nodes
from highnoon.workers.slot_state import SlotState, SlotStates
from highnoon.workers.trial.checkpoints import sweep
from highnoon.workers.trial.launch import remove_scratch

_log = logging.getLogger("highnoon.workers.agent")

_SCRATCH_EVERY_S = 300.0

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
        self._info = NodeInfo()
        self._scratch_at = 0.0
        self._took_itself_out = False
        self._idle = IdleShutdown(self._database, node.resources) if until_idle else None

    def enter(self) -> None:
        """Registers this boot. Raises SchemaMismatch as well: a database of a newer version."""
        node = self._node
        self._database.check_schema()
        sweep(node.checkpoints, self._is_over)
        self._nodes.enter(node.worker_id, host=node.host, pid=os.getpid(), slots=node.slots, queues=node.resources)
        event(_log, "enter", worker=node.worker_id[:8], host=node.host, slots=node.slots)

    def beat(self) -> Beat:
        """Renews the node's presence, with what it has now. Takes it out of the rotation while its disk is full."""
        trouble = disk_trouble(self._node.folder)
        state = self._nodes.beat(self._node.worker_id, self._info.read())
        if state is WorkerState.ACTIVE:
            # A person may have reinstated it: a quarantine that follows is not its own.
            self._took_itself_out = trouble is not None  # also where the answer of the move is lost
            if trouble is not None:
                self._took_itself_out = self._move(state, WorkerState.QUARANTINED, trouble)
                state = WorkerState.QUARANTINED if self._took_itself_out else state
        elif trouble is None and state is WorkerState.QUARANTINED and self._took_itself_out:
            state = WorkerState.ACTIVE if self._move(state, WorkerState.ACTIVE) else state
            self._took_itself_out = False
        return Beat(state, self._idle is not None and self._idle.is_due(), trouble)

    def _move(self, before: WorkerState, after: WorkerState, reason: str | None = None) -> bool:
        return self._nodes.move(self._node.worker_id, (before,), after, reason)

    def mark(self, state: WorkerState) -> None:
        """Sets the node's state, if it has a row."""
        self._nodes.mark(self._node.worker_id, state)

    def release(self, state: SlotState) -> None:
        """Takes the lease of a supervisor that died, so that its ticket need not wait for the lease to expire."""
        self._release(state, self._node.worker_id)
        self._slots.drop(state)

    def remove_dead_nodes(self) -> int:
        """Ends what nodes whose agent was killed left on this machine: leases, scratch files, folders; how many."""
        removed = 0
        for folder in dead_nodes(self._node.folder.parent):
            slots = SlotStates(folder / "slots")
            if not slots.none_at_work():
                # Its supervisors end at this moment.
                continue
            for state in slots.orphaned():
                self._release(state, folder.name)
            self._nodes.mark(folder.name, WorkerState.GONE)
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        if time.monotonic() >= self._scratch_at:
            self._scratch_at = time.monotonic() + _SCRATCH_EVERY_S
            remove_stray_scratch(self._node.settings.home)
        return removed

    def _release(self, state: SlotState, worker_id: str) -> None:
        attempts = Attempts(self._database)
        attempt = state.attempt
        if attempt is None:
            # It may have died between the grant of its lease and the note of it.
            attempt = attempts.held(state.ticket, worker_id=worker_id, pid=state.pid)
        if attempt is not None:
            message = f"its supervisor (pid {state.pid} on {self._node.host}) died"
            disposition = attempts.reap(state.ticket, attempt, message=message, only_expired=False)
            event(
                _log,
                "let_go",
                level=logging.WARNING,
                study=state.study,
                ticket=state.ticket,
                attempt=attempt,
                worker=worker_id[:8],
                disposition=disposition or "not_held",
            )
            self._broker.notify()
        if state.work_dir is not None:
            remove_scratch(Path(state.work_dir))

    def _is_over(self, study: str) -> bool:
        record = Studies(self._database).find(study)
        return record is not None and record.is_over


def remove_stray_scratch(home: Path) -> int:
    """Removes the scratch folders of attempts that no slot of any node here works on; how many there were."""
    # In this order: a slot's state has its folder before that is made.
    found = list(home.glob("runs/*/*/tmp"))
    try:
        used = {folder.parts[-2:] for slots in home.glob("nodes/*/slots") for folder in SlotStates(slots).work_dirs()}
    except (OSError, ValueError):
        return 0
    # Another node may reach the same home by another path.
    stray = [scratch.parent for scratch in found if scratch.parent.parts[-2:] not in used]
    for folder in stray:
        remove_scratch(folder)
    return len(stray)


class NodeInfo:
    """What the node has, for people: memory, cores, GPUs, version. Decides nothing.

    {"version", "cpus", "memory_total_bytes", "memory_used_bytes",
     "gpus": [{"uuid", "name", "memory_total_bytes", "memory_used_bytes"}, ...]}
    """

    def __init__(self, root: Path = Path("/"), gpus: Gpus | None = None) -> None:
        self._gpus = Gpus() if gpus is None else gpus
        self._poller = MemoryPoller(root=root, gpus=self._gpus)

    def read(self) -> dict[str, Any]:
        """The values now, as JSON; what cannot be read is None. Never raises. A few small files, one driver call."""
        memory = self._poller.node().tightest
        return {
            "version": _version(),
            "cpus": len(os.sched_getaffinity(0)),
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
