"""Slots that do what a supervisor does with PostgreSQL and Redis, and train nothing: each a thread and a connection.

Started by `benchmarks.scale`, several slots to a process. Reads a Task as a line of JSON, prints "ready" when each slot
has begun a trial, measures when the next line arrives, and prints its measurements as JSON.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

import redis

from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.domain.lease import Candidate, Disposition, Holder, Lease, Progress
from highnoon.shared.domain.messages import RunTrial, queue_name
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.runtime.processes import declare_only_our_code
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.database import Database
from highnoon.shared.store.optuna_store import OptunaStore, quiet
from highnoon.shared.store.optuna_study import OptunaStudy

_LEASE_S, _RENEW_S = 30.0, 8.0
"""The defaults of a node."""

_TAKE_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The work of the slots of one process, as its parent sends it."""

    database_url: str
    redis_url: str
    worker_ids: tuple[str, ...]
    """The node of each slot."""
    trial_s: float
    report_s: float
    measure_s: float

    def to_json(self) -> str:
        """For the standard input of the process."""
        return json.dumps(asdict(self))


class Measurements:
    """Seconds of each step in all slots of this process; recorded only while it is measured."""

    def __init__(self) -> None:
        self.is_open = False
        self._lock = threading.Lock()
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._errors: dict[str, int] = defaultdict(int)

    @contextmanager
    def timed(self, step: str, *, always: bool = False) -> Iterator[None]:
        """Times one step; `always` also before the measurement."""
        began = time.perf_counter()
        yield
        if self.is_open or always:
            with self._lock:
                self._seconds[step].append(time.perf_counter() - began)

    def failed(self, error: HighNoonError) -> None:
        """Counts an error, also outside of the measurement: no step should fail."""
        with self._lock:
            self._errors[f"{type(error).__name__}: {error}"] += 1

    def to_json(self) -> dict[str, Any]:
        """Seconds by step, and errors by their words."""
        with self._lock:
            return {"seconds": dict(self._seconds), "errors": dict(self._errors), "cpu_s": time.process_time()}


class Slot:
    """One simulated slot, a thread."""

    def __init__(self, task: Task, worker_id: str, measurements: Measurements, stopping: threading.Event) -> None:
        self._task = task
        self._stopping = stopping
        self._measured = measurements
        self._holder = Holder(worker_id=worker_id, host="simulated", pid=os.getpid())
        self._database = Database(task.database_url, at_most=1)
        self._attempts = Attempts(self._database)
        self._redis: Any = redis.Redis.from_url(task.redis_url)
        self._store: OptunaStore | None = None
        self._open: dict[int, OptunaStudy] = {}
        self.has_begun = threading.Event()

    def run(self) -> None:
        """Runs trials until all slots are stopped."""
        while not self._stopping.is_set():
            try:
                self._take_one()
            except HighNoonError as error:
                self._measured.failed(error)
        self._database.close()

    def _take_one(self) -> None:
        found = self._redis.brpop(queue_name("cpu"), timeout=_TAKE_S)
        if found is None:
            return
        message = _message(found[1])
        with self._measured.timed("look"):
            candidate = self._attempts.look(message.ticket)
        if candidate is None:
            return
        lease = self._start(candidate)
        if lease is None:
            return
        self.has_begun.set()
        reports = self._train(lease)
        outcome = Outcome(
            ending=Ending.COMPLETED, value=float(lease.params["dropout"] or 0), duration_s=self._task.trial_s
        )
        with self._measured.timed("finish"):
            token = uuid4().hex
            close = Disposition.CLOSE
            self._attempts.finish(lease, outcome, disposition=close, token=token, reports=reports)
        self._redis.publish("highnoon:bell", b"1")

    def _start(self, candidate: Candidate) -> Lease | None:
        is_new = candidate.study_id not in self._open
        with self._measured.timed("join" if is_new else "sample", always=is_new):
            study = self._opened(candidate)
            new = study.choose(ordinal=candidate.ordinal, waiting=candidate.waiting, before=candidate.before)
        with self._measured.timed("start"):
            lease = self._attempts.start(candidate, new, self._holder, ttl_s=_LEASE_S, log_path="simulated.log")
        return lease if isinstance(lease, Lease) else None

    def _opened(self, candidate: Candidate) -> OptunaStudy:
        if self._store is None:
            url, engine = self._database.url, self._database.engine
            self._store = OptunaStore(url, create_schema=False, reads_running_reports=False, engine=engine)
        if candidate.study_id not in self._open:
            self._open = {candidate.study_id: self._store.open(StudySpec.from_json(candidate.spec))}
        return self._open[candidate.study_id]

    def _train(self, lease: Lease) -> list[Report]:
        """Reports and renews as a supervisor does; what is not written yet goes with the finish."""
        reports: list[Report] = []
        ends_at = time.monotonic() + self._task.trial_s
        renew_at = time.monotonic() + _RENEW_S
        step = 0
        while (left := ends_at - time.monotonic()) > 0 and not self._stopping.wait(min(left, self._task.report_s)):
            reports.append(Report(step=step, value=1.0 / (step + 1)))
            step += 1
            if time.monotonic() >= renew_at:
                renew_at += _RENEW_S
                with self._measured.timed("renew"):
                    self._attempts.renew(lease, Progress(step=step, rss_bytes=100_000_000), reports)
                reports = []
        return reports


def _message(body: bytes) -> RunTrial:
    """The RunTrial in a message, as Celery wraps it."""
    _, kwargs, _ = json.loads(base64.b64decode(json.loads(body)["body"]))
    return RunTrial.from_kwargs(kwargs)


def main() -> None:
    """Runs the slots of one process; prints what they measured."""
    quiet()
    declare_only_our_code()
    task = Task(**json.loads(sys.stdin.readline()))
    stopping, measurements = threading.Event(), Measurements()
    slots = [Slot(task, worker_id, measurements, stopping) for worker_id in task.worker_ids]
    threads = [threading.Thread(target=slot.run) for slot in slots]
    for place, thread in enumerate(threads):
        thread.start()
        # Not all at once: in a cluster no two trials of a second begin together for ever.
        stopping.wait(task.trial_s / len(threads) if place + 1 < len(threads) else 0)
    for slot in slots:
        slot.has_begun.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    cpu_before = time.process_time()
    measurements.is_open = True
    stopping.wait(task.measure_s)
    measurements.is_open = False
    found = measurements.to_json()
    found["cpu_s"] -= cpu_before
    stopping.set()
    for thread in threads:
        thread.join()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
