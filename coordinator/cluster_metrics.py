"""The coordinator's metrics: what it did since it began, and what ledger and Redis hold at the moment of a scrape.

A scrape reads the ledger, a tick never does it for metrics. Its few statements are bounded by what is live: studies
that ended an hour ago are not shown. Several coordinators show the same ledger, so that queries take the `max`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.messages import RESOURCES
from highnoon.shared.domain.states import WorkerState, counted_cause
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.metrics_endpoint import exposed
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes, open_slots
from highnoon.shared.store.queries import LedgerQueries
from highnoon.shared.store.snapshot_queries import SnapshotQueries

_ENDED_WITHIN_S = 3600.0
_TICK_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counters:
    """What this coordinator did, counted where it is done. Without a registry for no scrape."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.leads = Gauge("highnoon_coordinator_leads", "1 while this one leads.", registry=registry)
        self.tick_s = Histogram(
            "highnoon_coordinator_tick_seconds",
            "How long the leader's ticks took.",
            buckets=_TICK_BUCKETS_S,
            registry=registry,
        )
        self.ticks_failed = Counter(
            "highnoon_coordinator_ticks_failed", "Ticks that an outage or a fault ended.", registry=registry
        )
        self.actions = Counter(
            "highnoon_coordinator_actions", "Actions of ticks: reap, dispatch, ...", ["action"], registry=registry
        )
        self.study_faults = Counter(
            "highnoon_coordinator_study_faults",
            "Faults in the data of single studies, by what they hindered.",
            ["during"],
            registry=registry,
        )


class LedgerCollector(Collector):
    """What ledger and Redis hold now."""

    def __init__(self, settings: Settings, database: Database, broker: Broker) -> None:
        self._settings = settings
        self._queries = LedgerQueries(database)
        self._snapshot = SnapshotQueries(database)
        self._nodes = Nodes(database)
        self._broker = broker

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the services."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Metrics of a service that is away are missing; `highnoon_service_up` shows which one that is."""
        up = GaugeMetricFamily("highnoon_service_up", "1 while the service answers.", labels=["service"])
        for service, read in (("postgresql", self._ledger), ("redis", self._messages)):
            try:
                found = list(read())
            except ServiceUnavailable:
                found = []
            up.add_metric([service], bool(found))
            yield from found
        yield up

    def _ledger(self) -> Iterator[Metric]:
        studies = _family("highnoon_studies", "Studies by state.", "state")
        for state, number in self._queries.studies_by_state().items():
            studies.add_metric([state], number)
        tickets = _family("highnoon_tickets", "Tickets by state; a study has one per trial.", "study", "state")
        best = _family("highnoon_best_value", "The best value so far.", "study")
        retries = _family("highnoon_retries", "Attempts beyond the first of their ticket.", "study")
        for study in self._queries.progress(ended_within_s=_ENDED_WITHIN_S):
            name = study.record.name
            for ticket_state, number in study.counts.by_state.items():
                tickets.add_metric([name, ticket_state], number)
            retries.add_metric([name], study.retries)
            if study.best_value is not None:
                best.add_metric([name], study.best_value)
        attempts = _family("highnoon_attempts", "Attempts that ended, by how and why.", "study", "ending", "cause")
        counts: dict[tuple[str, str, str], int] = {}
        for ended in self._queries.attempts.ended_attempts(ended_within_s=_ENDED_WITHIN_S):
            key = ended.study, ended.ending, counted_cause(ended.cause)
            counts[key] = counts.get(key, 0) + ended.count
        for labels, count in counts.items():
            attempts.add_metric(labels, count)
        broken = "1 for a live study whose data is broken, or whose trials a worker cannot start."
        faults = _family("highnoon_study_fault", broken, "study")
        for name in self._snapshot.faults():
            faults.add_metric([name], 1)
        yield from (studies, tickets, best, retries, attempts, faults)
        leases = self._queries.attempts.leases()
        yield GaugeMetricFamily("highnoon_leases", "Attempts under way.", leases.count)
        yield GaugeMetricFamily(
            "highnoon_lease_age_seconds", "Since the oldest attempt under way began.", leases.oldest_s
        )
        silence_s = max(0.0, self._settings.lease_s - leases.least_left_s) if leases.least_left_s is not None else 0.0
        yield GaugeMetricFamily("highnoon_lease_silence_seconds", "The longest silence of a holder.", silence_s)
        yield from self._node_metrics()

    def _node_metrics(self) -> Iterator[Metric]:
        present = self._nodes.present(self._settings)
        workers = _family("highnoon_workers", "Nodes that sent a beat lately, by state.", "state")
        for state in (WorkerState.ACTIVE, WorkerState.DRAINING, WorkerState.QUARANTINED):
            workers.add_metric([state], sum(worker.state is state for worker in present))
        yield workers
        yield GaugeMetricFamily("highnoon_slots", "Trials that could run at a time now.", open_slots(present))

    def _messages(self) -> Iterator[Metric]:
        depth = _family("highnoon_queue_messages", "Messages in Redis that no worker has begun.", "resource")
        for resource in RESOURCES:
            depth.add_metric([resource], self._broker.depth(resource))
        yield depth


@contextmanager
def served_metrics(settings: Settings, *, database: Database, broker: Broker) -> Iterator[Counters]:
    """The counters of one coordinator, served at `/metrics` where its settings name a port. Raises InvalidInput."""
    registry = CollectorRegistry()
    counters = Counters(registry)
    if not settings.metrics_port:
        yield counters
        return
    registry.register(LedgerCollector(settings, database, broker))
    ProcessCollector(registry=registry)
    with exposed(
        registry,
        host=settings.metrics_host,
        port=settings.metrics_port,
        key="HIGHNOON_METRICS_PORT",
        token=settings.metrics_token,
    ):
        yield counters


def _family(name: str, what: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, labels=labels)
