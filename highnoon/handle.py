"""A study on a cluster, for Python: watch, read, steer. On the stores and views that the command line uses.

Connects at the first call, again in a forked process, and to the new address after `start` was restarted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highnoon.arguments import callable_problems, trial_number
from highnoon.cluster import Cluster
from highnoon.handle_view import as_html, counts_line
from highnoon.progress import progress_view
from highnoon.results import ReadStudy
from highnoon.shared.domain.artifact import Artifact, chosen_artifact, listed
from highnoon.shared.domain.errors import InvalidInput, NoCompletedTrial, UserInputError
from highnoon.shared.domain.note import Note, NoteChange, Notes
from highnoon.shared.domain.states import TrialState
from highnoon.shared.runtime.file_store import download, store_of
from highnoon.shared.runtime.logs import event
from highnoon.shared.store import steering
from highnoon.shared.store.access import Access
from highnoon.shared.store.notes import NoteStore
from highnoon.shared.views.attempt_logs import printed_by
from highnoon.shared.views.trials import in_order
from highnoon.watching import Watcher, log_frozen

if TYPE_CHECKING:
    from typing_extensions import Self

    from highnoon.shared.store.optuna_study import OptunaStudy
    from highnoon.shared.store.study_records import StudyRecord
    from highnoon.shared.views.studies import StudySummary

logger = logging.getLogger("highnoon")


class StudyHandle(ReadStudy):
    """A study of a cluster, by its name. All of it raises ServiceUnavailable while the database is away."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.name = name
        self._cluster = cluster
        self._access: Access | None = None
        self._opened: tuple[tuple[int, int], OptunaStudy] | None = None
        self._pid = os.getpid()

    @property
    def access(self) -> Access:
        """The connections, in this process and to the cluster's address of now."""
        url = self._cluster.url
        if self._access is not None and self._pid == os.getpid() and self._access.url != url:
            self._access.close()
            self._access = None
        if self._access is None or self._pid != os.getpid():
            access = Access(url)
            access.database.check_schema()
            self._access, self._opened, self._pid = access, None, os.getpid()
        return self._access

    @property
    def status(self) -> str:
        """running, paused, finished, cancelling or cancelled."""
        return str(self._record.state)

    @property
    def summary(self) -> StudySummary:
        """Its trials, counted: total, complete, pruned, failed, running, waiting; and its best value."""
        from highnoon.shared.store.queries import LedgerQueries
        from highnoon.shared.views.studies import StudySummary

        return StudySummary.of_ledger(LedgerQueries(self.access.database).progress_of(self._record))

    def optuna_study(self) -> Any:
        """The older name of `study`."""
        return self.study

    def logs(self, trial: int) -> str:
        """What the last attempt of a trial printed: its file where it ran on this host, else the end of it.

        Raises UserInputError for a number that no trial has.
        """
        attempts = self.access.studies.attempts(self._record.id, trial_number=trial_number(trial))
        if not attempts:
            raise UserInputError(f"no attempt of study {self.name} has the trial number {trial!r}")
        return printed_by(attempts[-1])

    def metric_history(self, trial: int) -> dict[str, list[tuple[int, float]]]:
        """What a trial has logged: (step, value) by step of each metric that it logged more than once.

        Thinned, see `hn.log`; of a running trial they are up to half a minute old. Raises UserInputError for a number
        that no trial has.
        """
        return self.access.metric_history(self.name, self._results().trial(trial_number(trial)), self._record)

    def artifacts(self, trial: int | None = None) -> list[tuple[int, Artifact]]:
        """Files that trials have saved, with the number of their trial; of one trial, or of all."""
        return listed(self.access.store.artifacts(self.name), None if trial is None else trial_number(trial))

    def artifact(self, trial: int, name: str, to: str | Path = ".") -> Path:
        """Copies a file that a trial has saved into the folder `to`, from the cluster's store.

        Raises UserInputError where there is none, FileStoreError where the store does not give it.
        """
        chosen = chosen_artifact(self.access.store.artifacts(self.name), trial_number(trial), name)
        return download(store_of(self._cluster.settings), chosen, Path(to) / name)

    def pause(self) -> None:
        """Starts nothing new; running trials end by themselves. Raises StudyConflict."""
        steering.pause(self.access, self._record)

    def resume(self) -> None:
        """Goes on with a paused study. Raises StudyConflict."""
        steering.resume(self.access, self._record)

    def stop(self) -> None:
        """Gives the study up: what waits is dropped, what runs is stopped. Raises StudyConflict when it is over."""
        steering.cancel(self.access, self._record)

    def set_share(self, *, priority: int | None = None, max_running: int | None = None) -> None:
        """Changes its share of the slots; a `max_running` of 0 is no limit. Raises InvalidInput, StudyConflict."""
        steering.set_share(self.access, self._record, priority=priority, max_running=max_running)

    def add_trials(self, count: int) -> int:
        """So many more trials; a finished study runs again. Raises InvalidInput, StudyConflict."""
        return steering.add_trials(self.access, self._record, count)

    def enqueue(self, params: Mapping[str, Any]) -> None:
        """One more trial at this point; the sampler chooses what it leaves open. Raises InvalidInput."""
        steering.enqueue(self.access, self._record, dict(params))

    def extend_trial(self, number: int, **settings: Any) -> None:
        """One more trial that trains trial `number` longer: from its stored checkpoint, with the same parameters.

        `settings` are what the objective reads by `hn.trial_settings()`, such as `epochs=20`, which `Trainer` reads by
        itself; one that is a parameter of the study replaces it. Raises InvalidInput, StudyConflict, and UserInputError
        for a trial without a stored checkpoint.
        """
        steering.extend_trial(self.access, self._record, trial_number(number), settings)

    def stop_trial(self, number: int) -> None:
        """Ends one running trial, as cancelled; it is not tried again. Raises StudyConflict when it does not run."""
        steering.stop_trial(self.access, self._record, trial_number(number))

    def wait(self, progress: bool = True, timeout: float | None = None) -> Self:
        """Waits until the study is over, and returns the handle. Ctrl-C leaves, and the study goes on.

        `progress` draws a bar in a terminal, and logs a line for each trial elsewhere. An outage of the database ends
        nothing. Raises TimeoutError after `timeout` seconds, ServiceUnavailable when its `start` has ended.
        """
        with progress_view(shown=progress) as view:
            self._watcher.watch([log_frozen] if progress and not view.is_bar else [], view, timeout)
        return self

    def follow(self, *callbacks: Callable[[Any, Any], object]) -> Self:
        """As `wait`, and calls each f(study, trial) with Optuna's own objects for every trial that has ended.

        `study.stop()` in one of them pauses the study, unless it is over, and ends the wait; what they raise is logged.
        """
        if problems := callable_problems("callbacks", callbacks):
            raise InvalidInput("follow()", problems)
        with progress_view(shown=False) as view:
            watcher = self._watcher
            if watcher.watch(callbacks, view, None):
                paused = watcher.when_available(lambda: self.access.studies.pause(self._record.id))
                action, reason = "paused" if paused else "stopped", "a callback called study.stop()"
                event(logger, action, study=self.name, reason=reason)
        return self

    @property
    def _watcher(self) -> Watcher:
        return Watcher(
            name=self.name,
            summary=lambda: self.summary,
            study=self._results,
            is_embedded=self._cluster.is_embedded,
        )

    @property
    def _record(self) -> StudyRecord:
        return self.access.studies.get(self.name)

    @property
    def _name(self) -> str:
        return self.name

    @property
    def _is_maximized(self) -> bool:
        return self._record.spec.get("direction") == "maximize"

    def _results(self) -> OptunaStudy:
        record = self._record
        key = (record.id, record.spec_version)
        if self._opened is None or self._opened[0] != key:
            self._opened = (key, self.access.optuna(record))
        return self._opened[1]

    def _notes(self) -> Notes:
        return NoteStore(self.access.database).of_study(self._record.name)

    def _annotate(self, trial: int | None, change: NoteChange, seen: str | None) -> Note:
        return NoteStore(self.access.database).change(self._record.name, trial, change, seen=seen)

    def _nothing_completed(self) -> NoCompletedTrial:
        what = "feasible" if self._record.spec.get("constraints") else "completed"
        return NoCompletedTrial(f"study {self.name!r} has no {what} trial yet: {counts_line(self.summary)}")

    def __repr__(self) -> str:
        """Name, state and counts now; never raises."""
        try:
            summary = self.summary
        except Exception as error:
            return f"StudyHandle({self.name!r}, cannot be read: {error})"
        return (
            f"StudyHandle({self.name!r}, {summary.state}, {summary.closed} of {summary.total}  {counts_line(summary)})"
        )

    def _repr_html_(self) -> str:
        """For notebooks: how far it is, its history, and the best trials."""
        summary = self.summary
        if summary.spec.get("objectives"):
            return as_html(summary, self._results().best_trials())
        complete = [trial for trial in self._results().trials([TrialState.COMPLETE]) if trial.is_feasible]
        best = in_order(complete, key=lambda trial: trial.value, descending=summary.maximize)[:5]
        return as_html(summary, best, [trial.value for trial in complete if trial.value is not None])
