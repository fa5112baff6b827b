"""What every request works with: the readings, actions and caches of this process, and look-ups that handlers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from highnoon.shared.domain.errors import NoCompletedTrial, UnknownStudy
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.nodes import Worker
from highnoon.shared.store.queries import AttemptSpan, LeaderState, QueueState, RunningAttempt
from highnoon.shared.views.studies import StudySummary, queue_object, worker_object
from highnoon.shared.views.trials import TICKET
from highnoon.webui.actions import StudyActions, WorkerActions
from highnoon.webui.event_stream import EventStream
from highnoon.webui.figure_cache import FigureCache
from highnoon.webui.settings import WebSettings
from highnoon.webui.study_repository import StudyRepository
from highnoon.webui.trial_export import TrialExport


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The workers that are there, what runs, what waits."""

    workers: Sequence[Worker]
    running: Sequence[RunningAttempt]
    queues: Sequence[QueueState]
    leader: LeaderState | None

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
            "workers": [worker_object(worker, self.running) for worker in self.workers],
            "queues": [queue_object(queue) for queue in self.queues],
            "coordinator": None if self.leader is None else {"term": self.leader.term, "leads": self.leader.left_s > 0},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AppState:
    """All collaborators of the handlers; one per process."""

    settings: WebSettings
    repository: StudyRepository
    actions: StudyActions
    worker_actions: WorkerActions
    figures: FigureCache
    export: TrialExport
    event_stream: EventStream
    kept_values: dict[str, tuple[object, list[float]]] = field(default_factory=dict)

    def trial(self, study: StudySummary, number: int) -> Trial:
        """Raises UnknownStudy where the study has no trial of that number."""
        trials = self.repository.trials(study.name).trials
        if not 0 <= number < len(trials):
            raise UnknownStudy(f"Study {study.name!r} has no trial {number}; it has {len(trials):,} so far.")
        return trials[number]

    def best(self, study: StudySummary) -> Trial:
        """Raises NoCompletedTrial."""
        best = self.repository.trials(study.name).best
        if best is None:
            raise NoCompletedTrial(f"study {study.name!r} has no completed trial yet")
        return best

    def attempts(self, study: StudySummary, trial: Trial) -> list[AttemptRecord]:
        """All attempts at the ticket of a trial, its own among them; none for a study without a coordinator."""
        ticket = trial.attrs.get(TICKET)
        if study.record is None or not isinstance(ticket, int):
            return []
        return self.repository.access().studies.attempts(study.record.id, ticket_id=ticket)

    def spans(self, study: StudySummary, numbers: Sequence[int]) -> Mapping[int, AttemptSpan]:
        """By trial number: where and how long it ran."""
        if study.record is None:
            return {}
        found = self.repository.queries().spans(study.record.id, numbers=numbers)
        return {span.trial_number: span for span in found if span.trial_number is not None}

    def values(self, study: StudySummary) -> list[float]:
        """Values in the order of completion, kept while no other trial completes."""
        if study.record is None:
            return []
        key = (study.record.id, study.complete)
        if self.kept_values.get(study.name, (None, []))[0] != key:
            self.kept_values[study.name] = (key, self.repository.queries().values(study.record.id))
        return self.kept_values[study.name][1]

    def cluster(self) -> Cluster:
        """Everything about the cluster page. Raises ServiceUnavailable where there is no ledger."""
        queries = self.repository.queries()
        return Cluster(
            workers=self.repository.nodes().workers(silent_for_s=self.settings.silent_s),
            running=queries.running(),
            queues=queries.queues(),
            leader=queries.leader(),
        )


def own_attempt(trial: Trial, attempts: Sequence[AttemptRecord]) -> AttemptRecord | None:
    """The attempt that made this very trial."""
    return next((attempt for attempt in attempts if attempt.trial_number == trial.number), None)


def app_state(request: Request) -> AppState:
    """The state of this process, for handlers."""
    state: AppState = request.app.state.app_state
    return state
