"""A lease that expires is reaped, and its ticket sent again, at that moment and not with the next regular tick."""

from __future__ import annotations

import threading
import time

from highnoon.coordinator.service import Service
from highnoon.shared.domain.states import TicketState
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.submission import submit
from tests.ledger import ANNA, Ledger
from tests.made_up import spec_of
from tests.support import eventually

_LEASE_S = 2.0
_TICK_S = 60.0


def test_ticket_of_a_lost_node_is_queued_again_when_its_lease_expires(ledger: Ledger, redis_url: str) -> None:
    # Given a coordinator that has met no outage for a lease, and looks at the ledger once a minute
    periods = {"lease_s": _LEASE_S, "renew_s": 0.1, "tick_s": _TICK_S, "leader_ttl_s": 2 * _TICK_S}
    settings = load_settings({}, database_url=ledger.database.url, redis_url=redis_url, **periods)
    submit(spec_of("digits", n_trials=1), ledger.access)
    (ticket,) = ledger.tickets(ledger.access.studies.get("digits"))
    ledger.nodes.enter("bert", host="node-b", pid=2, slots=1, queues=["cpu"])
    stopping = threading.Event()
    with Broker(redis_url) as broker:
        service = Service(settings, database=ledger.database, broker=broker)
        steady_at = time.monotonic() + _LEASE_S
        eventually(lambda: service.tick() and time.monotonic() > steady_at, what="the coordinator is steady")

        # When the node of a running trial is silent
        ledger.expire(ledger.start(ticket, ANNA), in_s=0.5)
        ticking = threading.Thread(target=service.serve, args=(stopping,))
        ticking.start()

        # Then its ticket is given back and sent again long before the next regular tick
        try:
            eventually(lambda: ledger.state(ticket) == TicketState.QUEUED, _TICK_S / 4, what="the ticket is queued")
        finally:
            stopping.set()
            service.wake()
            ticking.join()
