"""The way of a local trial's reports, questions and files to its study. An outage of the database ends no trial."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from highnoon.shared.domain.artifact import MOST_ARTIFACTS
from highnoon.shared.domain.errors import ServiceRefused, ServiceUnavailable
from highnoon.shared.domain.trial import MetricHistory, Report
from highnoon.shared.objective.staged_files import SavedFile, remove_copy
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.trial_definition import PatientDefinition

logger = logging.getLogger("highnoon")


class StudyChannel:
    """Sends what a trial in this process reports to the study, or keeps it while the database is away."""

    def __init__(self, study: OptunaStudy, trial_id: int, folder: Path | None = None) -> None:
        """`folder` has the copies of files that the trial saves."""
        self._study, self._trial_id, self._folder = study, trial_id, folder
        self._unsent: list[Report] = []
        self.saved: dict[str, SavedFile] = {}
        self.definition: PatientDefinition | None = None

    def report(self, value: float, step: int) -> None:
        """Never fails for an outage. Raises ServiceRefused for what the database does not take."""
        self.keep(Report(step=step, value=value))
        self.send_if_possible()

    def keep(self, report: Report) -> None:
        """Sends it with the next ones."""
        self._unsent.append(report)

    def send_if_possible(self) -> None:
        """As `send`, but keeps everything while the database is away."""
        with _outage_tolerated():
            self.send()

    def should_prune(self) -> bool:
        """False while the database is away."""
        must_prune = False
        with _outage_tolerated():
            must_prune = self._study.should_prune(self._trial_id)
        return must_prune

    def report_params(self, total: int, active: int | None = None) -> None:
        """Nothing to send: the outcome has it."""

    def progress(self) -> None:
        """Nothing to send: there is no time limit on what reports nothing."""

    def save_file(self, saved: SavedFile) -> None:
        """Kept until the trial is over: its files are stored then, the newest of each name."""
        if saved.name is None or (saved.name not in self.saved and len(self.saved) >= MOST_ARTIFACTS):
            return
        replaced, self.saved[saved.name] = self.saved.get(saved.name), saved
        if replaced is not None and self._folder is not None:
            with suppress(OSError):
                remove_copy(self._folder, replaced)

    def keep_history(self, history: MetricHistory) -> None:
        """Nothing to send: the outcome has it."""

    def send(self) -> None:
        """Everything reported so far. Raises ServiceUnavailable, and may then be called again, and ServiceRefused."""
        if self._unsent:
            try:
                self._study.report_many(self._trial_id, self._unsent)
            except ServiceRefused:
                self._unsent.clear()
                raise
            self._unsent.clear()
        if self.definition is not None:
            self.definition.flush()


@contextmanager
def _outage_tolerated() -> Iterator[None]:
    try:
        yield
    except ServiceUnavailable as error:
        event(logger, "database_away", level=logging.WARNING, error=error)
