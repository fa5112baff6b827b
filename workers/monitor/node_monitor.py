"""The agent's watch over the memory of its whole node: when it is full, one trial goes, with a note why.

For what no limit of a single trial catches: limits that add up to more than the node has, and others who live on the
machine. `kill_order` chooses; the victim's supervisor reads the note and decides what becomes of the ticket.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable

from highnoon.shared.memory.process_group import ProcessGroup
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.processes import identify
from highnoon.workers import kernel
from highnoon.workers.monitor.kill_selection import Candidate, KillNotes, note_of, victim
from highnoon.workers.monitor.memory_limits import Allowance
from highnoon.workers.monitor.memory_policy import pause_s
from highnoon.workers.monitor.node_memory import NodeMemory, NodeVitals
from highnoon.workers.slot_state import SlotStates

_log = logging.getLogger("highnoon.workers.monitor.node_monitor")

_SETTLE_S = 2.0
"""How long the memory of a victim may take to come back before the next one goes."""

_WORTH_SHARE = 0.02
"""Of the node: a trial that holds less than this is not worth its end."""


class NodeWatch:
    """One node's. `look` is stepped by the agent and never raises for what the kernel says."""

    def __init__(
        self,
        slots: int,
        running: SlotStates,
        notes: KillNotes,
        memory: NodeMemory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._running = running
        self._notes = notes
        self._memory = memory or NodeMemory()
        self._clock = clock
        self._due_at = 0.0

    def due_in_s(self) -> float:
        """Seconds until the next look is worth it."""
        return max(0.0, self._due_at - self._clock())

    def look(self) -> None:
        """Ends one trial if the node is full."""
        if self.due_in_s() > 0:
            return
        node = self._memory.read()
        allowance = None if node is None else Allowance(node_bytes=node.limit_bytes, slots=self._slots)
        headroom = 0 if node is None or allowance is None else allowance.full_bytes - node.used_bytes
        self._due_at = self._clock() + (pause_s(headroom, 0.0) if node is not None else _SETTLE_S)
        if node is not None and allowance is not None and headroom < 0:
            self._make_room(node, allowance)

    def _make_room(self, node: NodeVitals, allowance: Allowance) -> None:
        share = allowance.share_bytes
        chosen = victim(self._candidates(), share_bytes=share, least_bytes=int(_WORTH_SHARE * node.limit_bytes))
        self._due_at = self._clock() + _SETTLE_S
        if chosen is None:
            return
        note = note_of(chosen, share_bytes=share)
        try:
            self._notes.write(chosen.group, note)
        except OSError as error:
            # Without a note the supervisor takes it for a signal from outside: tried again, which is safe.
            event(_log, "kill_note_lost", level=logging.ERROR, group=chosen.group, reason=error)
        kernel.kill_group(chosen.group, signal.SIGKILL)
        event(
            _log,
            "node_memory_full",
            level=logging.WARNING,
            group=chosen.group,
            cause=note.cause,
            used_bytes=chosen.used_bytes,
            node_used_bytes=node.used_bytes,
            node_limit_bytes=node.limit_bytes,
        )

    def _candidates(self) -> list[Candidate]:
        found = []
        for group in self._running.trial_groups():
            leader = identify(group)
            processes = ProcessGroup(group)
            processes.find()
            memory = processes.exact()
            if leader is not None and memory is not None:
                used = memory.private_bytes + memory.shared_bytes
                found.append(Candidate(group=group, started_ticks=leader.started_ticks, used_bytes=used))
        return found
