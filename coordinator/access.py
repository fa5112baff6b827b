"""Access to the ledger for commands: the cluster's database, or the embedded one of this home.

Owns the choice between the two and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from coordinator.stack import serving_database
from shared.errors import InvalidInput, Problem, UnknownStudy, nearest
from shared.ledger import Database, Studies
from shared.ledger.studies import StudyRecord
from shared.settings import Settings
from shared.studies import OptunaStore, OptunaStudy
from shared.studies.endings import TRACEBACK
from shared.study import StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Both sides of the database for the duration of one command."""

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


def is_embedded(settings: Settings) -> bool:
    """True when no addresses are set: everything runs on this machine. Raises InvalidInput when only one is."""
    missing = [name for name in ("database_url", "redis_url") if getattr(settings, name) is None]
    if len(missing) == 1:
        problem = Problem(
            key=f"HIGHNOON_{missing[0].upper()}",
            message="is not set, but the other address is",
            hint="Set both for a cluster, or none to run everything on this machine.",
        )
        raise InvalidInput("environment", [problem])
    return bool(missing)


@contextmanager
def ledger_access(settings: Settings) -> Iterator[Access]:
    """The ledger as it is now. Raises UnknownStudy when nothing was ever run here, ServiceUnavailable when away.

    Reading needs no Redis, so that the database's address alone is enough.
    """
    if settings.database_url is not None:
        with opened(settings.database_url) as access:
            access.database.check_schema()
            yield access
        return
    is_embedded(settings)  # refuses when only Redis is named: that person means another ledger than this home's
    with serving_database(settings.home) as url, opened(url, create=True) as access:
        yield access


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
