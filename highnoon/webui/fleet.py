"""What a person may do to workers from here: drain one, or take one back that was put into quarantine."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.domain.errors import UnknownWorker, WorkerConflict
from highnoon.shared.domain.states import WorkerState
from highnoon.shared.runtime.embedded import attach
from highnoon.shared.store.nodes import Worker
from highnoon.webui.library import Library


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSteering:
    """The acts. Raise UnknownWorker, WorkerConflict, ServiceUnavailable."""

    library: Library
    home: Path
    silent_s: float

    def drain(self, worker_id: str) -> None:
        """It takes nothing new, ends what runs within its drain time, and leaves."""
        worker = self._worker(worker_id)
        if self._is_embedded():
            raise WorkerConflict(
                f"the worker on {worker.host} belongs to coordinator start, which would start it again: "
                "pause its studies instead"
            )
        before = (WorkerState.ACTIVE, WorkerState.QUARANTINED)
        self._move(worker, before, WorkerState.DRAINING, "a person drained it from the dashboard")

    def reinstate(self, worker_id: str) -> None:
        """One in quarantine gets trials again. One that drains is about to end: it is started anew on its machine."""
        worker = self._worker(worker_id)
        if not self.library.nodes().reinstate(worker.id):
            raise WorkerConflict(
                f"the worker on {worker.host} is {worker.state}, and only one in quarantine can be taken back"
            )

    def _worker(self, worker_id: str) -> Worker:
        there = self.library.nodes().workers(silent_for_s=self.silent_s) if self.library.has_ledger() else []
        for worker in there:
            if worker.id == worker_id:
                return worker
        raise UnknownWorker(f"There is no worker {worker_id!r} now.")

    def _move(self, worker: Worker, before: Collection[WorkerState], after: WorkerState, reason: str | None) -> None:
        if not self.library.nodes().move(worker.id, before, after, reason):
            wanted = " or ".join(before)
            raise WorkerConflict(
                f"the worker on {worker.host} is {worker.state}, and only one that is {wanted} can be {after}"
            )

    def _is_embedded(self) -> bool:
        running = attach(self.home)
        return running is not None and running.database_url == self.library.access().database.url
