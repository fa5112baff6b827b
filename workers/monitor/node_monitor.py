"""The agent's monitor of the memory of its whole node: when it is full, one trial is killed, with a record why.

For what no limit of a single trial catches: limits that add up to more than the node has, and other users of the
machine. `kill_selection` chooses; the trial's supervisor reads the record and decides what happens to the ticket.
"""

from __future__ import annotations

import logging
import signal
import time

from highnoon.shared.memory.poller import MemoryPoller, Scope
from highnoon.shared.memory.process_memory import ProcessTree
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.processes import identify
from highnoon.workers import kernel
from highnoon.workers.monitor.kill_selection import KillRecord, KillRecords, RunningTrial, select
from highnoon.workers.monitor.memory_policy import NodeLimits, pause_s
from highnoon.workers.slot_state import SlotStates

_log = logging.getLogger("highnoon.workers.monitor.node_monitor")

_SETTLE_S = 2.0
"""How long the memory of a killed trial may take to come back before the next one is killed."""

_WORTH_SHARE = 0.02
"""Of the node: a trial that holds less than this is not worth its end."""


class NodeMonitor:
    """Monitors one node. The agent calls `look` in its loop; it never raises for what the kernel answers."""

    def __init__(self, slots: int, running: SlotStates, records: KillRecords) -> None:
        self._slots = slots
        self._running = running
        self._records = records
        self._poller = MemoryPoller()
        self._due_at = 0.0

    def due_in_s(self) -> float:
        """Seconds until the next reading is due."""
        return max(0.0, self._due_at - time.monotonic())

    def look(self) -> None:
        """Kills one trial if the node is full."""
        if self.due_in_s() > 0:
            return
        node = self._poller.node().tightest
        if node is None:
            self._due_at = time.monotonic() + _SETTLE_S
            return
        limits = NodeLimits(node_bytes=node.limit_bytes, slots=self._slots)
        headroom = limits.full_bytes - node.used_bytes
        self._due_at = time.monotonic() + (pause_s(headroom) if headroom >= 0 else _SETTLE_S)
        if headroom < 0:
            self._kill_one(node, limits.share_bytes)

    def _kill_one(self, node: Scope, share_bytes: int) -> None:
        least_bytes = int(_WORTH_SHARE * node.limit_bytes)
        chosen = select(self._trials(), share_bytes=share_bytes, least_bytes=least_bytes)
        if chosen is None:
            return
        record = KillRecord.of(chosen, share_bytes=share_bytes)
        try:
            self._records.write(chosen.group, record)
        except OSError as error:
            # Without a record the supervisor takes it for a signal from outside: tried again, which is safe.
            event(_log, "kill_note_lost", level=logging.ERROR, group=chosen.group, reason=error)
        kernel.kill_group(chosen.group, signal.SIGKILL)
        event(
            _log,
            "node_memory_full",
            level=logging.WARNING,
            group=chosen.group,
            cause=record.cause,
            used_bytes=chosen.used_bytes,
            node_used_bytes=node.used_bytes,
            node_limit_bytes=node.limit_bytes,
        )

    def _trials(self) -> list[RunningTrial]:
        found = []
        for group in self._running.trial_groups():
            leader = identify(group)
            tree = ProcessTree(group)
            tree.find()
            memory = tree.exact()
            if leader is not None and memory is not None:
                found.append(RunningTrial(group=group, started_ticks=leader.started_ticks, used_bytes=memory.bytes))
        return found
