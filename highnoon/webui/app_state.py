"""What every request works with: the readings, actions and caches of this process, and look-ups that handlers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from highnoon.shared.domain.errors import HighNoonError, InvalidInput, NoCompletedTrial, UnknownStudy
from highnoon.shared.domain.metric_history import Curves
from highnoon.shared.domain.note import Notes
from highnoon.shared.domain.sampler_spec import EXHAUSTIVE
from highnoon.shared.domain.states import TICKET
from highnoon.shared.domain.trial import Trial
from highnoon.shared.domain.trial_environment import GIT, HOST
from highnoon.shared.store import steering
from highnoon.shared.store.attempt_queries import AttemptSpan, RunningAttempt
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.connections import is_on_this_machine
from highnoon.shared.store.environments import Environments
from highnoon.shared.store.nodes import Worker, open_slots
from highnoon.shared.store.notes import NoteStore
from highnoon.shared.store.queries import LeaderState, QueueState
from highnoon.shared.store.stored_files import StoredFiles
from highnoon.shared.views.environments import environment_facts
from highnoon.shared.views.studies import StudySummary, queue_object, worker_object
from highnoon.shared.views.trials import has_ended
from highnoon.webui.actions import ObjectiveFilter, StudyActions, WorkerActions
from highnoon.webui.downloads import Downloads
from highnoon.webui.event_stream import EventStream
from highnoon.webui.results import FigureCache
from highnoon.webui.settings import WebSettings
from highnoon.webui.study_repository import StudyRepository


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
        return open_slots(self.workers)

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


class AppState:
    """All collaborators of the handlers; one per process. Connects to nothing before the first request."""

    def __init__(self, settings: WebSettings, database: Callable[[], str]) -> None:
        self.settings = settings
        self.repository = StudyRepository(database)
        is_local = settings.database_url is None or _is_local(database)
        allowed = ObjectiveFilter(patterns=settings.objectives, folders_too=is_local)
        self.actions = StudyActions(repository=self.repository, allowed=allowed)
        self.worker_actions = WorkerActions(self.repository, settings.settings)
        self.figures = FigureCache(self.repository)
        self.downloads = Downloads(settings.settings)
        self.event_stream = EventStream(self.repository)
        self._values: dict[str, tuple[object, list[float]]] = {}

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
            raise self._nothing(study)
        return best

    def front(self, study: StudySummary) -> list[Trial]:
        """The best trials of several objectives; [] where there is one. Raises NoCompletedTrial."""
        found = self.repository.trials(study.name)
        if found.objectives and not found.front:
            raise self._nothing(study)
        return found.front

    def _nothing(self, study: StudySummary) -> NoCompletedTrial:
        what = "feasible" if study.spec.get("constraints") else "completed"
        return NoCompletedTrial(f"study {study.name!r} has no {what} trial yet")

    def attempts(self, study: StudySummary, trial: Trial) -> list[AttemptRecord]:
        """All attempts at the ticket of a trial, its own among them; none for a study without a coordinator."""
        ticket = trial.attrs.get(TICKET)
        if study.record is None or not isinstance(ticket, int):
            return []
        return self.repository.access().studies.attempts(study.record.id, ticket_id=ticket)

    def notes(self, study: StudySummary) -> Notes:
        """What people wrote beside it and its trials."""
        access = self.repository.access()
        if not self.repository.has_ledger():
            return self.repository.view(study.name).notes()
        return NoteStore(access.database).of_study(study.name)

    def tags(self) -> Mapping[str, Sequence[str]]:
        """Of each study that has some."""
        return NoteStore(self.repository.access().database).tags_of_studies()

    def environment(self, study: StudySummary, trial: Trial, attempt: AttemptRecord | None) -> Mapping[str, str]:
        """What a trial ran in, by label; nothing where it was not recorded."""
        access = self.repository.access()
        if attempt is None:
            content = self.repository.view(study.name).environment(trial)
            host = {"Host": str(trial.attrs.get(HOST))} if HOST in trial.attrs else {}
            return {} if content is None else {**environment_facts(content), **host, **_git(trial.attrs.get(GIT), "")}
        if attempt.environment is None:
            return {}
        content = Environments(access.database).find(attempt.environment)
        code = {"Code": f"digest {attempt.code[:12]}"} if attempt.code else {}
        git = _git((study.full_spec or {}).get("git"), " where it was submitted")
        return {} if content is None else {**environment_facts(content), **code, **git}

    def metric_history(self, study: StudySummary, trial: Trial) -> Curves:
        """The curves of what a trial has logged."""
        return self.repository.access().metric_history(study.name, trial, study.record)

    def has_metric_history(self, study: StudySummary, trial: Trial) -> bool:
        """Whether there are some; cheaper than to read them."""
        return self.repository.access().has_metric_history(study.name, trial, study.record)

    def has_checkpoint(self, study: StudySummary, trial: Trial) -> bool:
        """Whether a longer training can go on from it."""
        if study.record is None or not has_ended(trial):
            return False
        return trial.number in StoredFiles(self.repository.access().database).extendable(study.record.id)

    def points_left(self, study: StudySummary) -> int | None:
        """How many points of a grid have no trial; None where there is no grid that could be read."""
        if study.record is None or study.full_spec["sampler"]["name"] not in EXHAUSTIVE:
            return None
        try:
            return max(0, steering.most_trials(study.record) - study.total)
        except InvalidInput:
            return None

    def spans(self, study: StudySummary, numbers: Sequence[int]) -> Mapping[int, AttemptSpan]:
        """By trial number: where and how long it ran."""
        if study.record is None:
            return {}
        found = self.repository.queries().attempts.spans(study.record.id, numbers=numbers)
        return {span.trial_number: span for span in found if span.trial_number is not None}

    def values(self, study: StudySummary) -> list[float]:
        """Values in the order of completion, kept while no other trial completes."""
        if study.record is None:
            return []
        key = (study.record.id, study.complete)
        if self._values.get(study.name, (None, []))[0] != key:
            self._values[study.name] = (key, self.repository.queries().values(study.record.id))
        return self._values[study.name][1]

    def cluster(self) -> Cluster:
        """Everything about the cluster page. Raises ServiceUnavailable where there is no ledger."""
        queries = self.repository.queries()
        return Cluster(
            workers=self.repository.nodes().present(self.settings.settings),
            running=queries.attempts.running(),
            queues=queries.queues(),
            leader=queries.leader(),
        )


def _git(commit: str | None, where: str) -> dict[str, str]:
    dirty = " with changes" if commit and commit.endswith("+") else ""
    return {"Git": f"{commit[:12]}{dirty}{where}"} if commit else {}


def own_attempt(trial: Trial, attempts: Sequence[AttemptRecord]) -> AttemptRecord | None:
    """The attempt that made this very trial."""
    return next((attempt for attempt in attempts if attempt.trial_number == trial.number), None)


def app_state(request: Request) -> AppState:
    """The state of this process, for handlers."""
    state: AppState = request.app.state.app_state
    return state


State = Annotated[AppState, Depends(app_state)]


def _known_study(app: State, study: str) -> StudySummary:
    return app.repository.study(study.rstrip("/"))


def _fresh_study(app: State, study: str) -> StudySummary:
    return app.repository.study(study.rstrip("/"), fresh=True)


KnownStudy = Annotated[StudySummary, Depends(_known_study)]
"""The study of an address, by its name or id; UnknownStudy ends the request."""

FreshStudy = Annotated[StudySummary, Depends(_fresh_study)]
"""The same, read now: before a change."""


def _known_trial(app: State, study: KnownStudy, number: int) -> Trial:
    return app.trial(study, number)


KnownTrial = Annotated[Trial, Depends(_known_trial)]


def _is_local(database: Callable[[], str]) -> bool:
    with suppress(HighNoonError):
        return is_on_this_machine(database())
    return False
