"""A node's metrics: what its supervisors reported, and its memory, slots and GPUs at the moment of a scrape.

Served by the agent. Supervisors report through `telemetry`; trial processes have no part in it. The coordinator
serves what the database knows of all nodes together.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from highnoon.shared.domain.lease import Disposition
from highnoon.shared.domain.states import MEMORY_CAUSES, Ending, counted_cause
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.runtime.metrics_endpoint import exposed
from highnoon.workers.message_filter import rejected_messages
from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotStates
from highnoon.workers.telemetry import AttemptMetrics, inbox, received

_STEP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ATTEMPT_BUCKETS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class NodeMetrics:
    """Counts since this agent began."""

    def __init__(self, node: Node, registry: CollectorRegistry) -> None:
        self._idle_s = Counter(
            "highnoon_worker_slot_idle_seconds", "Seconds that slots waited between two attempts.", registry=registry
        )
        self._step_s = Histogram(
            "highnoon_worker_step_seconds",
            "How long a step of the protocol took: sample, start, finish.",
            ["step"],
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        )
        self._attempt_s = Histogram(
            "highnoon_worker_attempt_seconds",
            "How long attempts ran.",
            buckets=_ATTEMPT_BUCKETS_S,
            registry=registry,
        )
        self._attempts = Counter(
            "highnoon_worker_attempts", "Attempts that ended here.", ["ending", "cause"], registry=registry
        )
        self._retries = Counter(
            "highnoon_worker_retries", "Attempts that are to be repeated.", ["ending"], registry=registry
        )
        self._memory_stops = Counter(
            "highnoon_worker_memory_stops", "Attempts that did not fit into memory.", ["cause"], registry=registry
        )
        self._ended_by_others = Counter(
            "highnoon_worker_ended_by_others",
            "Attempts whose Optuna trial another program had ended otherwise.",
            registry=registry,
        )
        ProcessCollector(registry=registry)
        registry.register(_NodeNow(node))

    def count(self, note: AttemptMetrics) -> None:
        """One attempt that a supervisor reported."""
        if note.idle_s is not None:
            self._idle_s.inc(max(0.0, note.idle_s))
        for step, seconds in note.steps_s.items():
            self._step_s.labels(step).observe(seconds)
        if not note.ending:
            return
        self._attempts.labels(note.ending, counted_cause(note.cause)).inc()
        if note.duration_s is not None:
            self._attempt_s.observe(note.duration_s)
        if note.disposition != Disposition.CLOSE:
            self._retries.labels(note.ending).inc()
        self._ended_by_others.inc(note.was_ended_by_others)
        if note.ending == Ending.STOPPED and note.cause in MEMORY_CAUSES:
            self._memory_stops.labels(note.cause).inc()


class _NodeNow(Collector):
    """Read at each scrape: 20 ms, most of them for exact memory."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._slots = SlotStates(node.folder)
        self._poller = MemoryPoller()

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering shall read nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The slots, the memory, the GPUs."""
        node = self._node
        about = {"worker": node.worker_id[:8], "host": node.host, "version": version("highnoon-hpo")}
        yield InfoMetricFamily("highnoon_worker", "Which node this is.", about)
        yield GaugeMetricFamily("highnoon_worker_slots", "Trials that this node runs at a time.", node.slots)
        yield GaugeMetricFamily("highnoon_worker_slots_busy", "Slots with an attempt under way.", self._slots.busy())
        rejected = CounterMetricFamily("highnoon_worker_messages_rejected", "Messages that were no trial's.")
        rejected.add_metric([], rejected_messages(node.folder))
        yield rejected
        yield from self._memory()

    def _memory(self) -> Iterator[Metric]:
        sample = self._poller.exact()
        what = "Memory of agent, supervisors and trials; shared pages count once."
        yield GaugeMetricFamily("highnoon_worker_memory_bytes", what, sample.process_bytes)
        if sample.tightest is not None:
            what = "Memory in use against the tightest limit, by any process."
            yield GaugeMetricFamily("highnoon_worker_memory_used_bytes", what, sample.tightest.used_bytes)
            what = "The tightest limit of memory here."
            yield GaugeMetricFamily("highnoon_worker_memory_limit_bytes", what, sample.tightest.limit_bytes)
        gpu_used = GaugeMetricFamily("highnoon_worker_gpu_memory_used_bytes", "GPU memory in use.", labels=["gpu"])
        gpu_total = GaugeMetricFamily("highnoon_worker_gpu_memory_total_bytes", "GPU memory.", labels=["gpu"])
        for number, gpu in enumerate(sample.gpus):
            gpu_used.add_metric([f"gpu {number}"], gpu.memory_used_bytes)
            gpu_total.add_metric([f"gpu {number}"], gpu.memory_total_bytes)
        yield from (gpu_used, gpu_total)


@contextmanager
def node_metrics(node: Node) -> Iterator[int | None]:
    """Serves the metrics of a node, if its settings ask for that. Raises InvalidInput."""
    settings = node.settings
    if not settings.worker_metrics_port:
        yield None
        return
    registry = CollectorRegistry()
    metrics = NodeMetrics(node, registry)
    endpoint = exposed(
        registry,
        host=settings.metrics_host,
        port=settings.worker_metrics_port,
        key="HIGHNOON_WORKER_METRICS_PORT",
        token=settings.metrics_token,
    )
    with endpoint as port:
        node.folder.mkdir(parents=True, exist_ok=True)
        with inbox(node.folder) as receiver:
            threading.Thread(target=_listen, args=(receiver, metrics), name="telemetry", daemon=True).start()
            yield port


def _listen(receiver: socket.socket, metrics: NodeMetrics) -> None:
    for metrics_of_attempt in received(receiver):
        metrics.count(metrics_of_attempt)
