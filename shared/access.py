"""Access to a database that holds studies: our ledger and Optuna's side of it, opened and closed together.

Knows no addresses by itself: `coordinator.access` and the web UI choose them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.errors import UnknownStudy, nearest
from shared.ledger import Database, Studies
from shared.ledger.studies import StudyRecord
from shared.studies import OptunaStore, OptunaStudy
from shared.studies.endings import TRACEBACK
from shared.study import StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Both sides of one database."""

    url: str
    database: Database
    studies: Studies
    store: OptunaStore

    def study(self, name: str) -> StudyRecord:
        """The study of that name. Raises UnknownStudy with the nearest one."""
        record = self.studies.find(name)
        if record is None:
            names = [known.name for known in self.studies.all()]
            raise UnknownStudy(f"no study named {name!r}. {nearest(name, names) or 'There is none yet.'}")
        return record

    def optuna(self, record: StudyRecord) -> OptunaStudy:
        """Optuna's side of a study of the ledger."""
        return self.store.open(StudySpec.from_json(record.spec))

    def traceback(self, record: StudyRecord, trial_number: int) -> str:
        """What the objective of a failed trial raised; empty when it raised nothing."""
        return str(self.optuna(record).trial(trial_number).attrs.get(TRACEBACK, ""))


@contextmanager
def opened(url: str, *, create: bool = False) -> Iterator[Access]:
    """Connections to one database, given back at the end; `create` makes what tables are missing."""
    # Optuna's tables first: whoever finds our ledger may count on both.
    store = OptunaStore(url, create_schema=create)
    database = Database(url)
    try:
        if create:
            database.create_schema()
        yield Access(url=url, database=database, studies=Studies(database), store=store)
    finally:
        store.close()
        database.close()
