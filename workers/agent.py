"""The agent of a node: one process that says "I am here", drains on SIGTERM, and lets go of a dead supervisor's lease.

Owns the pool's life, the worker's row, the health file and the drain order. Runs no trial and holds no lease.
The first SIGTERM or SIGINT drains, the second ends everything at once.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import time

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.states import WorkerState
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.database import Database
from highnoon.shared.store.losses import Losses
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.studies import Studies
from highnoon.workers import kernel
from highnoon.workers.idle_shutdown import Emptiness
from highnoon.workers.monitor.kill_selection import KillRecords
from highnoon.workers.monitor.node_monitor import NodeMonitor
from highnoon.workers.monitor.trial_cgroups import TrialGroups
from highnoon.workers.node import Node
from highnoon.workers.node_info import NodeFacts
from highnoon.workers.node_lock import resident, sweep_deserted
from highnoon.workers.node_metrics import node_metrics
from highnoon.workers.pool_keeper import PoolKeeper
from highnoon.workers.slot_state import SlotNote, SlotNotes
from highnoon.workers.trial.checkpoints import sweep

_log = logging.getLogger("highnoon.workers.agent")

_LOOK_S = 0.5
_LONGEST_PAUSE_S = 10.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class Agent:
    """One boot of one node."""

    def __init__(self, node: Node, *, until_empty: bool = False) -> None:
        settings = node.settings
        if settings.database_url is None or settings.redis_url is None:
            raise ValueError("a worker needs the addresses of PostgreSQL and Redis")
        self._node = node
        self._database = Database(settings.database_url)
        self._nodes = Nodes(self._database)
        self._losses = Losses(self._database)
        self._broker = Broker(settings.redis_url)
        self._notes = SlotNotes(node.folder / "slots")
        self._facts = NodeFacts()
        self._node_monitor = NodeMonitor(node.slots, self._notes, KillRecords(node.folder / "kills"))
        self._groups: TrialGroups | None = None
        self._pool = PoolKeeper(node)
        self._emptiness = Emptiness(self._database, node.resources) if until_empty else None
        self._entered = False
        self._enter_at = 0.0
        self._enter_pause_s = 0.5
        self._beat_at = 0.0
        self._kill_pool_at: float | None = None

    def run(self) -> int:
        """Serves until drained. Returns the exit code. Raises InvalidInput for a port that cannot be had."""
        # Before the metrics' threads begin: a signal must reach `_hear_signals`, not one of them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        with resident(self._node.folder), node_metrics(self._node) as port:
            self._notes.prepare()
            swept = sweep_deserted(self._node.folder.parent)
            if swept:
                event(_log, "swept", worker=self._node.worker_id[:8], nodes=swept)
            self._prepare_groups()
            if port is not None:
                event(_log, "metrics", worker=self._node.worker_id[:8], port=port)
            return self._serve()

    def _serve(self) -> int:
        try:
            while True:
                is_draining = self._node.drain.is_given()
                if is_draining and self._pool.is_gone:
                    return 0
                # A new pool imports TensorFlow meanwhile, and takes no message before it has.
                status = self._pool.keep()
                if status is not None and not is_draining:
                    event(_log, "pool_died", level=logging.ERROR, worker=self._node.worker_id[:8], code=status)
                    if self._pool.is_hopeless(status):
                        return Exit.POOL_BROKEN
                self._enter_if_due()
                self._hear_signals()
                self._node_monitor.look()
                self._let_go_of_the_dead()
                self._beat()
        finally:
            self._leave()

    def _prepare_groups(self) -> None:
        """Before the pool starts, since it inherits the agent's cgroup."""
        self._groups = TrialGroups.prepare()
        swept = self._groups.sweep() if self._groups else 0
        by = "cgroup" if self._groups else "watchdog"
        event(_log, "memory_limits", worker=self._node.worker_id[:8], by=by, swept=swept)

    def _enter_if_due(self) -> None:
        """Registers this boot as soon as the database answers, saying meanwhile that it is waited for."""
        if self._entered or time.monotonic() < self._enter_at:
            return
        node = self._node
        try:
            self._database.check_schema()
            sweep(node.checkpoints, self._is_over)
            self._nodes.enter(node.worker_id, host=node.host, pid=os.getpid(), slots=node.slots, queues=node.resources)
        except ServiceUnavailable as error:
            event(_log, "waiting_for_database", level=logging.WARNING, worker=node.worker_id[:8], error=error)
            self._enter_at = time.monotonic() + random.uniform(0.5, 1.0) * self._enter_pause_s
            self._enter_pause_s = min(2 * self._enter_pause_s, _LONGEST_PAUSE_S)
            return
        self._entered = True
        event(_log, "enter", worker=node.worker_id[:8], host=node.host, slots=node.slots)

    def _is_over(self, study: str) -> bool:
        record = Studies(self._database).find(study)
        return record is not None and record.is_over

    def _hear_signals(self) -> None:
        """Waits for a signal or the next look, whichever comes first."""
        heard = signal.sigtimedwait(_SIGNALS, min(_LOOK_S, self._node_monitor.due_in_s()))
        if heard is not None and heard.si_signo in (signal.SIGTERM, signal.SIGINT):
            self._drain()
        if self._kill_pool_at is not None and time.monotonic() > self._kill_pool_at:
            self._pool.kill()

    def _drain(self) -> None:
        settings = self._node.settings
        again = self._node.drain.is_given()
        allowed_s = 0.0 if again else settings.drain_s
        self._node.drain.give(allowed_s=allowed_s)
        # Past this the pool is beyond politeness; the ladder of each supervisor takes three graces at most.
        self._kill_pool_at = time.monotonic() + allowed_s + 4 * settings.kill_grace_s + 1.0
        event(_log, "drain", worker=self._node.worker_id[:8], allowed_s=allowed_s)
        if not again:
            self._mark(WorkerState.DRAINING)
            self._pool.finish()

    def _beat(self) -> None:
        """Presence, and the health file that a probe looks at without asking anybody."""
        if time.monotonic() < self._beat_at:
            return
        self._beat_at = time.monotonic() + self._node.settings.presence_s
        self._node.health_file.touch()
        if not self._entered:
            return
        try:
            state = self._nodes.beat(self._node.worker_id, self._facts.read())
            is_empty = self._emptiness is not None and self._emptiness.lasts()
        except ServiceUnavailable as error:
            event(_log, "outage", level=logging.WARNING, during="beat", error=error)
            return
        # Another ledger at the same address knows nothing of this boot.
        self._entered = state is not None
        if (state is WorkerState.DRAINING or is_empty) and not self._node.drain.is_given():
            signal.raise_signal(signal.SIGTERM)
        elif state in (WorkerState.ACTIVE, WorkerState.QUARANTINED):
            self._obey_quarantine(state is WorkerState.QUARANTINED)

    def _obey_quarantine(self, is_quarantined: bool) -> None:
        """What runs may end; nothing new is taken until somebody reinstates the node."""
        if is_quarantined == self._pool.rests:
            return
        event(
            _log,
            "quarantine" if is_quarantined else "reinstated",
            level=logging.WARNING,
            worker=self._node.worker_id[:8],
        )
        if is_quarantined:
            self._pool.rest()
        else:
            self._pool.wake()

    def _let_go_of_the_dead(self) -> None:
        """A supervisor that died holds its lease for nothing: its ticket need not wait for the reaper."""
        for note in self._notes.orphaned():
            try:
                self._let_go(note)
            except ServiceUnavailable as error:
                event(_log, "outage", level=logging.WARNING, during="let_go", error=error)

    def _let_go(self, note: SlotNote) -> None:
        if note.attempt is None:
            self._notes.drop(note)
            return
        if note.trial_group is not None:
            kernel.kill_group(note.trial_group, signal.SIGKILL)
        if self._groups is not None:
            self._groups.sweep()
        disposition = self._losses.lose(
            note.ticket,
            note.attempt,
            message=f"its supervisor (pid {note.pid} on {self._node.host}) died",
            only_expired=False,
        )
        self._notes.drop(note)
        event(
            _log,
            "let_go",
            level=logging.WARNING,
            study=note.study,
            ticket=note.ticket,
            attempt=note.attempt,
            worker=self._node.worker_id[:8],
            disposition=disposition or "not_held",
        )
        self._broker.ring()

    def _leave(self) -> None:
        self._pool.kill()
        self._let_go_of_the_dead()
        self._mark(WorkerState.GONE)
        event(_log, "leave", worker=self._node.worker_id[:8])
        if not self._notes.orphaned():
            shutil.rmtree(self._node.folder, ignore_errors=True)

    def _mark(self, state: WorkerState) -> None:
        if not self._entered:
            return
        try:
            self._nodes.mark(self._node.worker_id, state)
        except ServiceUnavailable as error:
            event(_log, "outage", level=logging.WARNING, during="mark", error=error)
