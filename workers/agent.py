"""The agent of a node: keeps its pool running, its presence in the database, and its memory below the limit.

The main thread is the monitor: signals, the drain's deadline, the health file, the node's memory, the pool. It never
waits for a service: every statement runs in the I/O thread (`node_record`), and the monitor polls the results. So a
database that is away or frozen delays no drain and no kill. Runs no trial and holds no lease.
The first SIGTERM or SIGINT drains, the second ends everything at once.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.states import WorkerState
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.processes import adopt_orphans
from highnoon.shared.runtime.terminal import Exit
from highnoon.shared.store.outages import OutageLog
from highnoon.workers import kernel
from highnoon.workers.io_thread import IoThread
from highnoon.workers.monitor.kill_selection import KillRecords
from highnoon.workers.monitor.node_monitor import NodeMonitor
from highnoon.workers.monitor.trial_cgroups import TrialGroups
from highnoon.workers.node import Node, node_lock
from highnoon.workers.node_metrics import node_metrics
from highnoon.workers.node_record import Beat, NodeRecord
from highnoon.workers.pool_keeper import PoolKeeper
from highnoon.workers.slot_state import SlotState, SlotStates

_log = logging.getLogger("highnoon.workers.agent")

_POLL_S = 0.2
"""A supervisor is no child of this process: its end is found by looking."""
_REMOVE_DEAD_NODES_EVERY_S = 5.0
_RELEASE_AGAIN_S = 2.0
_LEAVE_S = 2.0
"""For the last statements. A database that does not answer them finds out by the node's silence."""

_STUCK_S = 120.0
"""No step of the I/O thread takes so long, also during an outage: the node is not well."""

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class Agent:
    """One boot of one node."""

    def __init__(self, node: Node, *, until_idle: bool = False) -> None:
        self._node = node
        self._slots = SlotStates(node.folder)
        self._record = NodeRecord(node, self._slots, until_idle=until_idle)
        self._node_monitor = NodeMonitor(node.slots, self._slots, KillRecords(node.folder))
        self._groups: TrialGroups | None = None
        self._drain_order = node.drain
        self._pool = PoolKeeper(node)
        self._entering: Future[None] | None = None
        self._beating: Future[Beat] | None = None
        self._removing: Future[int] | None = None
        self._remove_at = 0.0
        self._releases: dict[SlotState, Future[None]] = {}
        self._release_at: dict[SlotState, float] = {}
        self._stopped_since: dict[int, float] = {}
        self._has_entered = False
        self._is_signalled = False
        self._beat_at = 0.0
        self._kill_pool_at: float | None = None
        self._outages = OutageLog(_log)

    def run(self) -> int:
        """Serves until drained. Returns the exit code. Raises InvalidInput for a port that cannot be had."""
        # Before any thread starts: a signal must reach `_wait_for_signals`, not one of them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        adopt_orphans()
        # For its owner alone: logs, checkpoints and code are in it.
        self._node.settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with node_lock(self._node.folder), node_metrics(self._node) as port:
            self._slots.prepare()
            self._drain_order.prepare()
            self._prepare_groups()
            if port is not None:
                self._event("metrics", port=port)
            self._io = IoThread()
            try:
                return self._serve()
            finally:
                self._leave()

    def _serve(self) -> int:
        while True:
            is_draining = self._drain_order.is_given()
            if is_draining and self._pool.is_gone:
                return Exit.OK
            # A new pool imports TensorFlow meanwhile, and takes no message before it has.
            status = self._pool.keep()
            if status is not None and not is_draining:
                self._event("pool_died", level=logging.ERROR, code=status)
                if self._pool.is_hopeless(status):
                    return Exit.POOL_BROKEN
            self._wait_for_signals()
            # What a trial left and a dead supervisor cannot end any more, and supervisors whose pool was killed.
            self._pool.end_orphans()
            if self._kill_pool_at is not None and time.monotonic() > self._kill_pool_at and not self._pool.kill():
                self._event("pool_unkillable", level=logging.ERROR)
                return Exit.POOL_BROKEN
            self._node_monitor.look()
            self._end_stopped()
            self._release_leases_of_the_dead()
            self._stay_present()

    def _prepare_groups(self) -> None:
        """Before the pool starts, since it inherits the agent's cgroup."""
        self._groups = TrialGroups.prepare()
        swept = self._groups.sweep() if self._groups else 0
        self._event("memory_limits", by="cgroup" if self._groups else "watchdog", swept=swept)

    def _wait_for_signals(self) -> None:
        """Waits for a signal or the next poll, whichever comes first."""
        received = signal.sigtimedwait(_SIGNALS, min(_POLL_S, self._node_monitor.due_in_s()))
        if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
            self._drain(at_once=self._is_signalled)
            self._is_signalled = True

    def _drain(self, *, at_once: bool = False) -> None:
        settings = self._node.settings
        is_draining = self._drain_order.is_given()
        if is_draining and not at_once:  # by a person's order, whose time goes on
            return
        allowed_s = 0.0 if at_once else settings.drain_s
        try:
            self._drain_order.give(allowed_s=allowed_s)
        except OSError as error:  # the pool takes no further message, and its trials end with it at the latest
            self._event("drain_order_lost", level=logging.ERROR, error=error)
        # Past this the pool is killed; a supervisor needs three graces at most to end its trial.
        self._kill_pool_at = time.monotonic() + allowed_s + 4 * settings.kill_grace_s + 1.0
        self._event("drain", allowed_s=allowed_s)
        if not is_draining:
            self._io.submit(partial(self._record.mark, WorkerState.DRAINING), persistent=True)
            self._pool.finish()

    def _stay_present(self) -> None:
        """Touches the health file, which a probe reads without any service, and keeps the node's row alive."""
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + self._node.settings.presence_s
            if self._io.stuck_s() < _STUCK_S:
                with suppress(OSError):
                    self._node.health_file.touch()
            if self._has_entered and self._beating is None:
                self._beating = self._io.submit(self._record.beat)
            elif not self._has_entered and self._entering is None:
                self._entering = self._io.submit(self._record.enter, persistent=True)
        if self._entering is not None and self._entering.done():
            entered, self._entering = self._entering, None
            entered.result()
            self._has_entered = True
        if self._has_entered:
            self._remove_dead_nodes()
        if self._beating is not None and self._beating.done():
            beat, self._beating = self._beating, None
            try:
                self._obey(beat.result())
                self._outages.end()
            except ServiceUnavailable as error:
                self._outages.note("outage", error, worker=self._node.worker_id[:8], during="beat")

    def _remove_dead_nodes(self) -> None:
        """Of this machine: what agents that were killed left behind, the leases of their supervisors first."""
        if self._removing is not None and self._removing.done():
            removing, self._removing = self._removing, None
            if (error := removing.exception()) is not None:
                self._outages.note("outage", error, worker=self._node.worker_id[:8], during="remove_dead_nodes")
            elif removed := removing.result():
                self._event("swept", nodes=removed)
        if self._removing is None and time.monotonic() >= self._remove_at:
            self._remove_at = time.monotonic() + _REMOVE_DEAD_NODES_EVERY_S
            if self._groups is not None:
                self._groups.sweep()
            self._removing = self._io.submit(self._record.remove_dead_nodes)

    def _obey(self, beat: Beat) -> None:
        # Another database at the same address has no row of this boot.
        self._has_entered = beat.state is not None
        if self._drain_order.is_given():
            return
        if beat.state is WorkerState.DRAINING or beat.is_idle:
            self._drain()
        elif beat.state is WorkerState.QUARANTINED and not self._pool.is_paused:
            # What runs may end; nothing new is taken until a person reinstates the node.
            self._event("quarantine", level=logging.WARNING, reason=beat.trouble)
            self._pool.pause()
        elif beat.state is WorkerState.ACTIVE and self._pool.is_paused:
            self._event("reinstated", level=logging.WARNING)
            self._pool.resume()

    def _end_stopped(self) -> None:
        """Kills a pool or supervisor that SIGSTOP holds for twice a lease, which is lost by then: it holds a slot."""
        now = time.monotonic()
        pool = [] if self._pool.pid is None else [self._pool.pid]
        stopped = [pid for pid in (*pool, *self._slots.supervisors()) if kernel.is_stopped(pid)]
        self._stopped_since = {pid: self._stopped_since.get(pid, now) for pid in stopped}
        for pid, since in self._stopped_since.items():
            if now - since > 2 * self._node.settings.lease_s:
                self._event("end_stopped", level=logging.WARNING, pid=pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _release_leases_of_the_dead(self) -> None:
        """Kills what a dead supervisor's trial left, at once; its lease is released when the database answers."""
        for state in self._slots.orphaned():
            if state in self._releases or time.monotonic() < self._release_at.get(state, 0.0):
                continue
            if state not in self._release_at:
                if state.trial_group is not None:
                    kernel.kill_group(state.trial_group, signal.SIGKILL)
                if self._groups is not None:
                    self._groups.sweep()
            self._release_at[state] = time.monotonic() + _RELEASE_AGAIN_S
            # Not persistent: while a row of that study is locked, the node must go on to send its heartbeat.
            self._releases[state] = self._io.submit(partial(self._record.release, state))
        for state, release in [*self._releases.items()]:
            if release.done():
                del self._releases[state]
                error = release.exception()
                if isinstance(error, ServiceUnavailable):
                    self._event("outage", level=logging.WARNING, during="release", ticket=state.ticket, error=error)
                elif error is not None:
                    # The lease expires by itself; the state must not come up again at each poll.
                    self._event("outage", level=logging.ERROR, during="release", ticket=state.ticket, error=error)
                    self._slots.drop(state)

    def _leave(self) -> None:
        self._pool.kill()
        for waiting in (self._entering, self._beating):
            if waiting is not None:
                waiting.cancel()
        self._release_leases_of_the_dead()
        if self._groups is not None:
            # Each supervisor has one for the trial that would have been its next.
            self._pool.end_orphans(within_s=_LEAVE_S)
            self._groups.sweep()
        marked = self._io.submit(partial(self._record.mark, WorkerState.GONE))
        self._io.stop(_LEAVE_S)
        self._record.leave(_LEAVE_S)
        if not marked.done() or marked.exception() is not None:
            error = marked.exception() if marked.done() else "no answer"
            self._event("outage", level=logging.WARNING, during="mark", error=error)
        self._event("leave")
        if not self._slots.orphaned():
            shutil.rmtree(self._node.folder, ignore_errors=True)

    def _event(self, action: str, *, level: int = logging.INFO, **fields: object) -> None:
        event(_log, action, level=level, worker=self._node.worker_id[:8], **fields)
