"""What one request works with: the library, the acts and the figures of this process, and look-ups that many share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from highnoon.shared.domain.errors import NoCompletedTrial, UnknownStudy
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.nodes import Worker
from highnoon.shared.store.overview import AttemptSpan, Lead, QueueState, RunningAttempt
from highnoon.webui.events import Pulses
from highnoon.webui.figures import FigureCache
from highnoon.webui.fleet import FleetSteering
from highnoon.webui.library import Library
from highnoon.webui.settings import WebSettings
from highnoon.webui.sheets import Sheets
from highnoon.webui.snapshot import MESSAGE, TICKET
from highnoon.webui.steering import Steering
from highnoon.webui.studies import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Who is there, what runs, what waits."""

    workers: Sequence[Worker]
    running: Sequence[RunningAttempt]
    queues: Sequence[QueueState]
    lead: Lead | None

    @property
    def slots(self) -> int:
        """Trials that could run at a time now."""
        return sum(worker.slots for worker in self.workers)

    def of(self, worker: Worker) -> list[RunningAttempt]:
        """What one worker runs."""
        return [attempt for attempt in self.running if attempt.worker_id == worker.id]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "workers": [
                {
                    "id": worker.id,
                    "host": worker.host,
                    "pid": worker.pid,
                    "slots": worker.slots,
                    "queues": list(worker.queues),
                    "state": str(worker.state),
                    "reason": worker.state_reason,
                    "facts": dict(worker.facts),
                    "silent_s": worker.silent_s,
                    "running": [running_object(attempt) for attempt in self.of(worker)],
                }
                for worker in self.workers
            ],
            "queues": [
                {
                    "resource": queue.resource,
                    "waiting": queue.waiting,
                    "queued": queue.queued,
                    "leased": queue.leased,
                    "oldest_s": queue.oldest_s,
                }
                for queue in self.queues
            ],
            "coordinator": None if self.lead is None else {"term": self.lead.term, "leads": self.lead.left_s > 0},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """All collaborators of the handlers; one per process."""

    settings: WebSettings
    library: Library
    steering: Steering
    fleet: FleetSteering
    figures: FigureCache
    sheets: Sheets
    pulses: Pulses
    kept_values: dict[str, tuple[object, list[float]]] = field(default_factory=dict)

    def trial(self, study: Study, number: int) -> Trial:
        """Raises UnknownStudy where the study has no trial of that number."""
        trials = self.library.snapshot(study.name).trials
        if not 0 <= number < len(trials):
            raise UnknownStudy(f"Study {study.name!r} has no trial {number}; it has {len(trials):,} so far.")
        return trials[number]

    def best(self, study: Study) -> Trial:
        """Raises NoCompletedTrial."""
        best = self.library.snapshot(study.name).best
        if best is None:
            raise NoCompletedTrial(f"study {study.name!r} has no completed trial yet")
        return best

    def attempts(self, study: Study, trial: Trial) -> list[AttemptRecord]:
        """All attempts at the ticket of a trial, its own among them; none for a study that no coordinator knows."""
        ticket = trial.attrs.get(TICKET)
        if study.record is None or not isinstance(ticket, int):
            return []
        return self.library.access().studies.attempts(study.record.id, ticket_id=ticket)

    def own_attempt(self, study: Study, trial: Trial) -> AttemptRecord | None:
        """The attempt that made this very trial."""
        return next((one for one in self.attempts(study, trial) if one.trial_number == trial.number), None)

    def spans(self, study: Study, numbers: Sequence[int]) -> Mapping[int, AttemptSpan]:
        """By trial number: where and how long it ran."""
        if study.record is None:
            return {}
        found = self.library.overview().spans(study.record.id, numbers=numbers)
        return {span.trial_number: span for span in found if span.trial_number is not None}

    def values(self, study: Study) -> list[float]:
        """Values in the order in which they came, remembered while no other comes."""
        if study.record is None:
            return []
        key = (study.record.id, study.complete)
        if self.kept_values.get(study.name, (None, []))[0] != key:
            self.kept_values[study.name] = (key, self.library.overview().values(study.record.id))
        return self.kept_values[study.name][1]

    def cluster(self) -> Cluster:
        """Everything about the cluster page. Raises ServiceUnavailable where there is no ledger."""
        overview = self.library.overview()
        return Cluster(
            workers=self.library.nodes().workers(silent_for_s=self.settings.silent_s),
            running=overview.running(),
            queues=overview.queues(),
            lead=overview.lead(),
        )

    def message_of(self, trial: Trial) -> str:
        """One line for people on how a trial ended."""
        return str(trial.attrs.get(MESSAGE) or "")


def running_object(attempt: RunningAttempt) -> dict[str, Any]:
    """A running attempt for programs."""
    return {
        "study": attempt.study,
        "trial": attempt.trial_number,
        "attempt": attempt.attempt,
        "age_s": attempt.age_s,
        "lease_left_s": attempt.lease_left_s,
        "step": attempt.step,
        "rss_bytes": attempt.rss_bytes,
    }


def desk_of(request: Request) -> Desk:
    """The desk of this process, for handlers."""
    desk: Desk = request.app.state.desk
    return desk
