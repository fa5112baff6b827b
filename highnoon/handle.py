"""A study on a cluster, for Python: watch, read, steer. On the stores and views that the command line uses.

Connects at the first call, again in a forked process, and to the new address after `start` was restarted.
"""

from __future__ import annotations

import html
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from highnoon.arguments import callable_problems
from highnoon.cluster import Cluster
from highnoon.progress import ProgressView, progress_view
from highnoon.shared.domain.artifact import Artifact, chosen_artifact, listed
from highnoon.shared.domain.errors import InvalidInput, NoCompletedTrial, ServiceUnavailable, UserInputError
from highnoon.shared.domain.note import Note, NoteChange
from highnoon.shared.domain.states import MESSAGE, TrialState
from highnoon.shared.domain.trial import Params, Trial
from highnoon.shared.runtime.file_store import download, store_of
from highnoon.shared.runtime.logs import event
from highnoon.shared.store import steering
from highnoon.shared.store.access import Access
from highnoon.shared.store.notes import NoteStore
from highnoon.shared.store.outages import retry_until_available
from highnoon.shared.views.attempt_logs import printed_by
from highnoon.shared.views.trials import front_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from highnoon.shared.store.optuna_study import OptunaStudy
    from highnoon.shared.store.studies import StudyRecord
    from highnoon.shared.views.studies import StudySummary

logger = logging.getLogger("highnoon")

T = TypeVar("T")

_LOOK_S = 0.5
_GONE_S = 15.0
"""So long a `start` may be away while it is waited for: it is started again, perhaps."""


class StudyHandle:
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
        from highnoon.shared.store.queries import StudyProgress
        from highnoon.shared.views.studies import StudySummary

        return StudySummary.of_ledger(StudyProgress.of(self._record, self.access.studies))

    @property
    def trials(self) -> list[Trial]:
        """All trials by number, also the running and the failed ones."""
        return self._study.trials()

    @property
    def best_trial(self) -> Trial:
        """The best completed trial. Raises NoCompletedTrial; UserInputError for a study with several objectives."""
        best = self._study.best_trial()
        if best is None:
            raise self._nothing_completed()
        return best

    @property
    def best_trials(self) -> list[Trial]:
        """The completed trials that none beats in all objectives, by the first; of one objective the best.

        Raises NoCompletedTrial.
        """
        best = self._study.best_trials()
        if not best:
            raise self._nothing_completed()
        return best

    @property
    def best_params(self) -> Params:
        """The parameters of the best trial. Raises NoCompletedTrial."""
        return dict(self.best_trial.params)

    @property
    def best_value(self) -> float | None:
        """The value of the best trial. Raises NoCompletedTrial."""
        return self.best_trial.value

    def pareto_front(self) -> list[tuple[int, float, int]]:
        """(trial number, loss, parameter count) of every completed trial that none beats in both, smallest first."""
        completed = self._study.trials([TrialState.COMPLETE])
        return front_of(self.name, completed, maximize=self._record.spec.get("direction") == "maximize")

    def trials_dataframe(self, *args: Any, **options: Any) -> Any:
        """The trials as a pandas.DataFrame, as Optuna makes it and with its arguments. Raises MissingExtra."""
        return self._study.dataframe(*args, **options)

    def optuna_study(self) -> Any:
        """Optuna's own study, for its plots and its other functions."""
        return self._study.optuna_study

    def logs(self, trial: int) -> str:
        """What the last attempt of a trial printed: its file where it ran on this host, else the end of it.

        Raises UserInputError for a number that no trial has.
        """
        attempts = self.access.studies.attempts(self._record.id, trial_number=trial)
        if not attempts:
            raise UserInputError(f"no attempt of study {self.name} has the trial number {trial!r}")
        return printed_by(attempts[-1])

    def artifacts(self, trial: int | None = None) -> list[tuple[int, Artifact]]:
        """Files that trials have saved, with the number of their trial; of one trial, or of all."""
        return listed(self.access.store.artifacts(self.name), trial)

    def artifact(self, trial: int, name: str, to: str | Path = ".") -> Path:
        """Copies a file that a trial has saved into the folder `to`, from the cluster's store.

        Raises UserInputError where there is none, FileStoreError where the store does not give it.
        """
        chosen = chosen_artifact(self.access.store.artifacts(self.name), trial, name)
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

    def stop_trial(self, number: int) -> None:
        """Ends one running trial, as cancelled; it is not tried again. Raises StudyConflict when it does not run."""
        steering.stop_trial(self.access, self._record, number)

    def note(self, text: str | None = None, *, trial: int | None = None, tag: str = "", untag: str = "") -> Note:
        """The note beside the study, or one of its trials; changed where something is given ("" removes the text).

        Raises InvalidInput, and UserInputError for a number that no trial has.
        """
        store = NoteStore(self.access.database)
        if text is None and not tag and not untag:
            return store.of_study(self._record.name).get(trial, Note())
        change = NoteChange(text=text, tag=(tag,) if tag else (), untag=(untag,) if untag else ())
        return store.change(self._record.name, trial, change)

    def wait(self, progress: bool = True, timeout: float | None = None) -> Self:
        """Waits until the study is over, and returns the handle. Ctrl-C leaves, and the study goes on.

        `progress` draws a bar in a terminal, and logs a line for each trial elsewhere. An outage of the database ends
        nothing. Raises TimeoutError after `timeout` seconds, ServiceUnavailable when its `start` has ended.
        """
        with progress_view(shown=progress) as view:
            self._watch([_log] if progress and not view.is_bar else [], view, timeout)
        return self

    def follow(self, *callbacks: Callable[[Any, Any], object]) -> Self:
        """As `wait`, and calls each f(study, trial) with Optuna's own objects for every trial that has ended.

        `study.stop()` in one of them pauses the study, unless it is over, and ends the wait; what they raise is logged.
        """
        if problems := callable_problems("callbacks", callbacks):
            raise InvalidInput("follow()", problems)
        with progress_view(shown=False) as view:
            if self._watch(callbacks, view, None):
                paused = self._when_available(lambda: self.access.studies.pause(self._record.id))
                action, reason = "paused" if paused else "stopped", "a callback called study.stop()"
                event(logger, action, study=self.name, reason=reason)
        return self

    def _watch(
        self, callbacks: Sequence[Callable[[Any, Any], object]], view: ProgressView, timeout: float | None
    ) -> bool:
        """Calls back and shows how far it is until the study is over; True when a callback stopped it before."""
        from highnoon.shared.store.callbacks import Announcer

        announcer = Announcer(lambda: self._study, callbacks)
        ends_at = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                # Read before the trials: when the study is over by now, the next read of its trials is complete.
                summary = self._when_available(lambda: self.summary, ends_at)
                if self._when_available(announcer.call_for_ended, ends_at):
                    return True
            except ServiceUnavailable:
                if ends_at is None or time.monotonic() < ends_at:
                    raise
            else:
                view.show(self.name, summary.over, summary.total, self._counts(summary))
                if summary.is_over:
                    return False
            if ends_at is not None and time.monotonic() >= ends_at:
                raise TimeoutError(f"study {self.name!r} is not over after {timeout:g} seconds; it goes on")
            time.sleep(_LOOK_S)

    def _when_available(self, step: Callable[[], T], ends_at: float | None = None) -> T:
        """Repeats the step during an outage, to `ends_at`. Raises ServiceUnavailable when its `start` has ended."""
        limits = [_GONE_S] if self._cluster.is_embedded else []
        if ends_at is not None:
            limits.append(max(0.0, ends_at - time.monotonic()))
        return retry_until_available(step, logger, for_s=min(limits, default=None))

    @property
    def _record(self) -> StudyRecord:
        return self.access.study(self.name)

    @property
    def _study(self) -> OptunaStudy:
        record = self._record
        key = (record.id, record.spec_version)
        if self._opened is None or self._opened[0] != key:
            self._opened = (key, self.access.optuna(record))
        return self._opened[1]

    def _nothing_completed(self) -> NoCompletedTrial:
        what = "feasible" if self._record.spec.get("constraints") else "completed"
        return NoCompletedTrial(f"study {self.name!r} has no {what} trial yet: {self._counts(self.summary)}")

    def _counts(self, summary: StudySummary) -> str:
        best = None if summary.best is None else f"best {summary.best:.6g}"
        counts = {name: getattr(summary, name) for name in ("complete", "pruned", "failed", "running", "waiting")}
        return "  ".join(filter(None, [best, *(f"{count} {name}" for name, count in counts.items() if count)]))

    def __repr__(self) -> str:
        """Name, state and counts now; never raises."""
        try:
            summary = self.summary
        except Exception as error:
            return f"StudyHandle({self.name!r}, cannot be read: {error})"
        return (
            f"StudyHandle({self.name!r}, {summary.state}, {summary.over} of {summary.total}  {self._counts(summary)})"
        )

    def _repr_html_(self) -> str:
        """For notebooks: how far it is, and the best trials."""
        from highnoon.shared.views.trials import in_order

        summary = self.summary
        goals = list(summary.spec.get("objectives") or ())
        complete = [trial for trial in self._study.trials([TrialState.COMPLETE]) if trial.is_feasible]
        best = in_order(complete, key=lambda trial: trial.value, descending=summary.maximize)[:5]
        if goals:
            best = self._study.best_trials()
        names = list(best[0].params) if best else []
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("trial", *(goals or ["value"]), *names))
        rows = "".join(
            f"<tr><td>{trial.number}</td>"
            + "".join(f"<td>{value:.6g}</td>" for value in trial.values or (trial.value or 0.0,))
            + "".join(f"<td>{html.escape(str(trial.params.get(name)))}</td>" for name in names)
            + "</tr>"
            for trial in best
        )
        line = f"{summary.state}, {summary.over} of {summary.total} trials, {self._counts(summary)}"
        return f"<b>{html.escape(self.name)}</b>: {html.escape(line)}<table><tr>{head}</tr>{rows}</table>"


def _log(study: Any, trial: Any) -> None:
    """The line of a trial, as `HPOTrialManager` logs it."""
    failed = trial.state.name == "FAIL"
    event(
        logger,
        "trial",
        level=logging.WARNING if failed else logging.INFO,
        study=study.study_name,
        trial=trial.number,
        state=trial.state.name,
        value=None if failed else " ".join(f"{value:.6g}" for value in trial.values or ()) or None,
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        reason=trial.user_attrs.get(MESSAGE),
    )
