"""The coordinator's service: lead, look, plan, perform, wait for a notification. Nothing is kept between two ticks that
the ledger does not know, so it may die at any moment.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextlib import suppress

from highnoon.coordinator.cluster_metrics import Deeds
from highnoon.coordinator.executor import Performer
from highnoon.coordinator.optuna_side import OptunaSide
from highnoon.coordinator.planner import Rules, plan
from highnoon.coordinator.snapshot_reader import Observer
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.optuna_store import OptunaStore

_log = logging.getLogger("highnoon.coordinator.service")

HEALTH_FILE = "coordinator.health"

_BREATH_S = 0.1
"""At the busiest: bells within it share one tick, which costs about 10 ms. The dispatch buffer covers what is claimed
meanwhile: with four messages a slot, 40 trials a second and slot."""


class Service:
    """One coordinator. `serve` in a thread or as a process's main loop; `tick` by hand in tests."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        store: OptunaStore,
        broker: Broker,
        deeds: Deeds | None = None,
    ) -> None:
        self._settings = settings
        self._deeds = deeds or Deeds()
        self._nodes = Nodes(database)
        self._broker = broker
        optuna = OptunaSide(store)
        self._observer = Observer(settings, database=database, broker=broker, optuna=optuna)
        self._performer = Performer(
            database=database, broker=broker, optuna=optuna, observer=self._observer, deeds=self._deeds
        )
        self._rules = Rules(
            lease_s=settings.lease_s,
            tell_grace_s=settings.tell_grace_s,
            redispatch_s=settings.redispatch_s,
            dispatch_buffer=settings.dispatch_buffer,
            quarantine_after=settings.quarantine_after,
        )
        self._id = uuid.uuid4().hex
        self._term = 0
        self._steady_since: float | None = None

    def serve(self, stopping: threading.Event) -> None:
        """Ticks until `stopping` is set. Survives outages of both services; says so once per failed tick."""
        while not stopping.is_set():
            self._say_alive()
            try:
                self.tick()
            except ServiceUnavailable as error:
                self._steady_since = None
                self._deeds.failed()
                event(_log, "outage", level=logging.WARNING, during="tick", error=error)
            except Exception:
                # One bad tick (a study deleted under us, a bug) must not end the service for all the others.
                self._steady_since = None
                self._deeds.failed()
                _log.exception("action=tick_failed")
            self._broker.wait_for_notification(self._settings.tick_s)
            stopping.wait(_BREATH_S)
        self._step_down()

    def tick(self) -> bool:
        """One round. False when another coordinator leads. Raises ServiceUnavailable."""
        leadership = self._nodes.lead(self._id, ttl_s=self._settings.leader_ttl_s)
        self._deeds.led(leadership.mine)
        if not leadership.mine:
            self._steady_since = None
            return False
        if leadership.term != self._term:
            self._term = leadership.term
            event(_log, "lead", term=leadership.term)
        with self._deeds.tick():
            snapshot = self._observer.look(steady_s=self._steady_s())
            self._performer.perform(plan(snapshot, self._rules), snapshot)
        return True

    def _steady_s(self) -> float:
        """For how long this leader's ticks have succeeded: the reaper waits for a whole lease of it."""
        now = time.monotonic()
        if self._steady_since is None:
            self._steady_since = now
        return now - self._steady_since

    def _say_alive(self) -> None:
        """A file whose age a health check looks at: whether the loop turns, whatever the services do."""
        with suppress(OSError):
            (self._settings.home / HEALTH_FILE).touch()

    def _step_down(self) -> None:
        try:
            self._nodes.step_down(self._id)
        except ServiceUnavailable as error:
            event(_log, "outage", level=logging.WARNING, during="step_down", error=error)
