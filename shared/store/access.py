"""Access to a database that holds studies: our ledger and Optuna's side of it, opened and closed together.

Knows no addresses by itself: `coordinator.cli.command_io` and the dashboard choose them. Optuna's side is opened
at its first use: importing it takes longer than all that a command does which reads the ledger alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from highnoon.shared.domain.metric_history import Curves
from highnoon.shared.domain.states import TICKET
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.attempt_queries import AttemptQueries
from highnoon.shared.store.connections import READING_S, is_postgres
from highnoon.shared.store.database import Database
from highnoon.shared.store.studies import Studies
from highnoon.shared.store.study_records import StudyRecord

if TYPE_CHECKING:
    from highnoon.shared.store.optuna_store import OptunaStore
    from highnoon.shared.store.optuna_study import OptunaStudy


class Access:
    """Both sides of one database, on the same connections."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url, statement_s=READING_S)
        self.studies = Studies(self.database)
        self._store: OptunaStore | None = None
        self._opening = Lock()

    @property
    def store(self) -> OptunaStore:
        """Optuna's side. Raises ServiceUnavailable, and SchemaMismatch where there are no tables of it."""
        return self._opened_store(create=False)

    def create(self) -> None:
        """Makes what tables are missing, and brings older ones up to date. Raises SchemaMismatch for newer ones."""
        # Optuna's tables first: a process that finds our ledger relies on both.
        self._opened_store(create=True)
        self.database.create_schema()

    def optuna(self, record: StudyRecord) -> OptunaStudy:
        """Optuna's side of a study of the ledger, to read it. Keys of a newer version's specification are ignored."""
        from highnoon.shared.domain.study import StudySpec

        known = {key: value for key, value in record.spec.items() if key in StudySpec.model_fields}
        return self.store.open_to_read(StudySpec.from_json(known))

    def traceback(self, record: StudyRecord, trial_number: int) -> str:
        """What the objective of a failed trial raised; empty when it raised nothing."""
        from highnoon.shared.domain.states import TRACEBACK

        return str(self.optuna(record).trial(trial_number).attrs.get(TRACEBACK, ""))

    def metric_history(self, name: str, trial: Trial, record: StudyRecord | None) -> Curves:
        """The curves of a trial's metrics, each by step; {} without any.

        They are with its attempt in the ledger; of a trial without a ticket, or of a study that no coordinator runs
        (`record` is None), with Optuna's trial.
        """
        ticket = trial.attrs.get(TICKET)
        if record is None or not isinstance(ticket, int):
            return self.store.metric_history(name, trial.number)
        return AttemptQueries(self.database).metric_history(record.id, ticket, trial.number)

    def has_metric_history(self, name: str, trial: Trial, record: StudyRecord | None) -> bool:
        """Whether a trial has curves; reads none from the ledger."""
        ticket = trial.attrs.get(TICKET)
        if record is None or not isinstance(ticket, int):
            return bool(self.store.metric_history(name, trial.number))
        return AttemptQueries(self.database).has_metric_history(record.id, ticket, trial.number)

    def close(self) -> None:
        """Gives all connections back."""
        if self._store is not None:
            self._store.close()
        self.database.close()

    def _opened_store(self, *, create: bool) -> OptunaStore:
        from highnoon.shared.store.optuna_store import OptunaStore

        with self._opening:
            if self._store is None:
                lent = self.database.engine if is_postgres(self.database.url) else None
                self._store = OptunaStore(self.url, create_schema=create, engine=lent)
            return self._store


@contextmanager
def opened(url: str, *, create: bool = False) -> Iterator[Access]:
    """Connections to one database, given back at the end; `create` makes what tables are missing."""
    access = Access(url)
    try:
        if create:
            access.create()
        yield access
    finally:
        access.close()
