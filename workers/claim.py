"""From a message to a lease: whether this node takes the ticket now, and the claim itself.

A message that is not taken is declined, or the coordinator would wait until it takes it for lost.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.lease import Lease
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.database import Database
from highnoon.shared.store.leases import Holder, Leases
from highnoon.shared.store.memory_peaks import Peaks
from highnoon.shared.store.outages import persistently
from highnoon.workers.monitor.admission import Admission
from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotNotes

_log = logging.getLogger("highnoon.workers.claim")

_PUT_OFF_S = 1.0
"""How long a ticket waits that found no room on this node; other nodes and other tickets go first."""


class Claiming:
    """That of one supervisor, on its connections; its note is at work already."""

    def __init__(
        self, node: Node, holder: Holder, database: Database, leases: Leases, broker: Broker, notes: SlotNotes
    ) -> None:
        self._node = node
        self._holder = holder
        self._leases = leases
        self._broker = broker
        self._admission = Admission(node.folder / "admission", node.slots, notes, Peaks(database).of_study)

    def lease(self, message: RunTrial, known: StudySpec | None) -> Lease | None:
        """None when the ticket is not to be had, the node drains, or has no room for it now.

        `known` is the study as its supervisor has it open. Waits for the database.
        """
        is_draining, ttl_s = self._node.drain.is_given, self._node.settings.lease_s
        admitted = None if is_draining() else self._admission.admit(message, known, must_end=is_draining)
        if admitted is None:
            self.decline(message, delay_s=0.0 if is_draining() else _PUT_OFF_S)
            return None
        lease = persistently(lambda: self._leases.claim(message.ticket, self._holder, ttl_s=ttl_s), _log)
        return lease and replace(lease, must_be_alone=lease.must_be_alone or admitted.must_be_alone)

    def decline(self, message: RunTrial, *, delay_s: float = _PUT_OFF_S) -> None:
        """Its ticket waits again, for this node or another one. An outage leaves that to the coordinator."""
        try:
            self._leases.decline(message.ticket, delay_s=delay_s)
            self._broker.notify()
        except ServiceUnavailable as error:
            event(_log, "outage", level=logging.WARNING, during="decline", ticket=message.ticket, error=error)
