"""The coordinator's service: lead, read, plan, execute, wait for a notification. Nothing is kept between two ticks that
the ledger does not know, so it may die at any moment.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextlib import suppress

from highnoon.coordinator.cluster_metrics import Counters
from highnoon.coordinator.executor import ActionExecutor
from highnoon.coordinator.file_keeper import FileKeeping
from highnoon.coordinator.notifier import Notifier
from highnoon.coordinator.planner import plan, slots_wait
from highnoon.coordinator.queue_client import QueueClient
from highnoon.coordinator.snapshot_reader import SnapshotReader
from highnoon.coordinator.study_faults import StudyFaults
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.audit import AuditLog
from highnoon.shared.store.control import Control
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.outages import OutageLog

_log = logging.getLogger("highnoon.coordinator.service")

HEALTH_FILE = "coordinator.health"

_PAUSE_S = 0.1
"""Between two ticks: notifications within it share one tick, which costs about 10 ms. The dispatch buffer covers what
is claimed meanwhile: with 16 messages a slot, some 140 trials a second and slot."""

_LEAST_PAUSE = 4
"""While slots run out of messages the pause becomes shorter; in units of a tick's length, so that even then four fifths
of a core are left to others."""

_FILES_S = 5.0
"""How long a store may take for the last files when this process ends."""

_REMOVE_OLD_EVERY_S = 3600.0
_KEEP_NODES_S = 7 * 86_400.0

_SHORTEST_SLEEP_S = 1.0
"""A shorter gap between two ticks is a machine with much to do."""


def pause_after(pause_s: float, *, slots_waited: bool, tick_s: float) -> float:
    """The pause after a tick that took `tick_s`: half of the last one where slots had waited for it, else double."""
    wanted = pause_s / 2 if slots_waited else pause_s * 2
    return min(_PAUSE_S, max(wanted, _LEAST_PAUSE * tick_s))


class Service:
    """One coordinator. `serve` in a thread or as a process's main loop; `tick` by hand in tests, then `close`."""

    def __init__(
        self, settings: Settings, *, database: Database, broker: Broker, counters: Counters | None = None
    ) -> None:
        self._settings = settings
        self._counters = counters or Counters()
        self._nodes = Nodes(database)
        self._audit = AuditLog(database)
        self._queues = QueueClient(broker)
        self._faults = StudyFaults(Control(database), self._counters)
        self._reader = SnapshotReader(settings, database=database, queues=self._queues, faults=self._faults)
        self._notifier = Notifier(settings, database.url)
        self._executor = ActionExecutor(
            database=database, queues=self._queues, faults=self._faults, counters=self._counters
        )
        self._leads = False
        self._files = FileKeeping(settings, lambda: self._leads)
        self._id = uuid.uuid4().hex
        self._term = 0
        self._next_tick_s = settings.tick_s
        self._steady_since: float | None = None
        self._read_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._pause_s = _PAUSE_S
        self._remove_old_at = 0.0
        self._outages = OutageLog(_log)

    def serve(self, stopping: threading.Event) -> None:
        """Ticks until `stopping` is set; `wake` starts the next tick at once. Survives outages of both services."""
        self._files.start()
        while not stopping.is_set():
            self._touch_health_file()
            try:
                self.tick()
            except ServiceUnavailable as error:
                self._steady_since = None
                self._count_failure()
                self._outages.note("outage", error, during="tick")
            except Exception:
                # A bug must not end the service. It is no outage: leases are reaped on time all the same.
                self._count_failure()
                _log.exception("action=tick_failed")
            self._queues.wait(self._next_tick_s)
            stopping.wait(self._pause_s)
        self._files.stop(_FILES_S)
        self._step_down()
        self.close()

    def tick(self) -> bool:
        """One round. False when another coordinator leads. Raises ServiceUnavailable."""
        self._next_tick_s, self._pause_s, pause_s = self._settings.tick_s, _PAUSE_S, self._pause_s
        leadership = self._nodes.lead(self._id, ttl_s=self._settings.leader_ttl_s)
        self._counters.leads.set(leadership.mine)
        self._leads = leadership.mine
        if not leadership.mine:
            self._steady_since = None
            return False
        if leadership.term != self._term:
            self._term = leadership.term
            event(_log, "lead", term=leadership.term)
        began = time.perf_counter()
        snapshot = self._reader.read(steady_s=self._steady_s(), turns=self._executor.turns)
        self._next_tick_s = min(self._next_tick_s, snapshot.next_expiry_s)
        self._executor.execute(plan(snapshot, self._settings))
        self._faults.keep(snapshot.loads)
        self._remove_old_rows()
        self._notifier.wake()
        took_s = time.perf_counter() - began
        self._counters.tick_s.observe(took_s)
        self._pause_s = pause_after(pause_s, slots_waited=slots_wait(snapshot), tick_s=took_s)
        self._outages.end()
        return True

    def wake(self) -> None:
        """Ends the wait between two ticks."""
        self._queues.wake()

    def close(self) -> None:
        """Ends the threads that use Redis, and the one that sends notifications."""
        self._queues.close()
        self._notifier.close()

    def _steady_s(self) -> float:
        """For how long this leader has met no outage: the reaper waits for a whole lease of it."""
        now, since_boot = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
        # A machine that slept, or a process that was stopped: leases expired meanwhile, and holders renew first.
        was_away = since_boot - self._read_at > max(_SHORTEST_SLEEP_S, self._settings.lease_s - self._settings.renew_s)
        self._read_at = since_boot
        if self._steady_since is None or was_away:
            self._steady_since = now
        return now - self._steady_since

    def _remove_old_rows(self) -> None:
        if time.monotonic() < self._remove_old_at:
            return
        self._remove_old_at = time.monotonic() + _REMOVE_OLD_EVERY_S
        removed = self._nodes.remove_silent(for_s=_KEEP_NODES_S)
        if removed:
            event(_log, "remove_nodes", nodes=removed)
        self._audit.remove_old()

    def _touch_health_file(self) -> None:
        """A health check looks at its age: whether the loop runs, whatever the services do."""
        with suppress(OSError):
            (self._settings.home / HEALTH_FILE).touch()

    def _count_failure(self) -> None:
        self._counters.leads.set(0)
        self._counters.ticks_failed.inc()

    def _step_down(self) -> None:
        try:
            self._nodes.step_down(self._id)
        except ServiceUnavailable as error:
            event(_log, "outage", level=logging.WARNING, during="step_down", error=error)
