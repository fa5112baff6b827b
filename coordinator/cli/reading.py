"""Where the commands that read find studies: the ledger and Optuna's side of it, or any database of Optuna's.

`--storage` names a database as Optuna and HPOTrialManager do. Nothing is written to it, not even missing tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import ledger
from highnoon.shared.domain.errors import UnknownStudy

if TYPE_CHECKING:
    from highnoon.shared.domain.note import Notes
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.attempt_records import AttemptPlace, AttemptSummary
    from highnoon.shared.store.optuna_store import OptunaStore
    from highnoon.shared.store.study_view import StudyView
    from highnoon.shared.views.studies import StudySummary

Storage = Annotated[
    str | None,
    typer.Option(help="Read any database of Optuna studies instead, such as sqlite:///hpo.db.", metavar="URL"),
]


class Reader:
    """Studies of one database. `access` is None where no coordinator has ever used it."""

    def __init__(self, access: Access | None, store: OptunaStore | None = None) -> None:
        self.access = access
        self._store = store

    @property
    def store(self) -> OptunaStore:
        """Optuna's side."""
        if self._store is None:
            assert self.access is not None
            self._store = self.access.store
        return self._store

    def studies(self) -> list[StudySummary]:
        """All studies, oldest first; those that no coordinator runs last."""
        from highnoon.shared.store.queries import LedgerQueries
        from highnoon.shared.views.studies import StudySummary

        queries = None if self.access is None else LedgerQueries(self.access.database)
        ours = [] if queries is None else [StudySummary.of_ledger(one) for one in queries.progress()]
        if queries is not None and not queries.has_others():
            return ours  # without Optuna, whose import takes longer than all the rest
        known = {study.name for study in ours}
        others = (entry for entry in self.store.catalogue() if entry.name not in known)
        return [*ours, *(StudySummary.of_optuna(entry, self._best_value(entry.name)) for entry in others)]

    def study(self, name: str) -> StudySummary:
        """The study of that name. Raises UnknownStudy with the nearest one."""
        from highnoon.shared.store.queries import LedgerQueries
        from highnoon.shared.views.studies import StudySummary

        record = None if self.access is None else self.access.studies.find(name)
        if record is not None and self.access is not None:
            return StudySummary.of_ledger(LedgerQueries(self.access.database).progress_of(record))
        studies = self.studies()
        found = next((study for study in studies if study.name == name), None)
        if found is None:
            raise UnknownStudy.of(name, [study.name for study in studies])
        return found

    def view(self, name: str) -> StudyView:
        """Its trials, as Optuna has them. Raises UnknownStudy."""
        return self.store.view(name)

    def attempts(self, study: StudySummary) -> Sequence[AttemptSummary]:
        """How attempts ended, the oldest first; none where no coordinator runs the study."""
        from highnoon.shared.store.attempt_queries import AttemptQueries

        if self.access is None or study.id is None:
            return ()
        return AttemptQueries(self.access.database).summaries(study.id)

    def places(self, study: StudySummary) -> Mapping[int, AttemptPlace]:
        """Where each trial ran, by its number; {} where no coordinator runs the study."""
        from highnoon.shared.store.attempt_queries import AttemptQueries

        if self.access is None or study.id is None:
            return {}
        return AttemptQueries(self.access.database).places(study.id)

    def notes(self, study: str) -> Notes:
        """What people wrote beside it and its trials."""
        if self.access is None:
            return self.view(study).notes()
        from highnoon.shared.store.notes import NoteStore

        return NoteStore(self.access.database).of_study(study)

    def tags(self) -> Mapping[str, Sequence[str]]:
        """Of each study that has some."""
        if self.access is None:
            notes = {study.name: self.view(study.name).notes().get(None) for study in self.studies()}
            return {name: note.tags for name, note in notes.items() if note and note.tags}
        from highnoon.shared.store.notes import NoteStore

        return NoteStore(self.access.database).tags_of_studies()

    def notification_trouble(self, study: str) -> Sequence[str]:
        """Why notifications of the study wait."""
        if self.access is None:
            return ()
        from highnoon.shared.store.notifications import Outbox

        return Outbox(self.access.database).trouble(study)

    def _best_value(self, name: str) -> float | None:
        best = self.view(name).best()
        return best[0].value if len(best) == 1 else None


def next_step(study: StudySummary, storage: str | None) -> str:
    """What to do about a study that has no result; empty for one in another database, or that ended without a trial."""
    if storage or (study.is_over and not study.attempts):
        return ""
    shows = f"trials {study.name} shows how they ended" if study.is_over else f"watch {study.name} shows how far it is"
    return f"python -m coordinator {shows}"


@contextmanager
def reading(storage: str | None) -> Iterator[Reader]:
    """The ledger of this process's settings, or the database that `--storage` names. Raises what opening them does."""
    if storage is None:
        with ledger() as access:
            yield Reader(access)
        return
    from highnoon.shared.runtime.urls import existing
    from highnoon.shared.store.optuna_store import OptunaStore, quiet

    url = existing(storage, key="--storage")
    quiet()
    if url.startswith("postgresql"):
        from highnoon.shared.store.access import opened
        from highnoon.shared.store.queries import LedgerQueries

        with opened(url) as access:
            if LedgerQueries(access.database).has_ledger():
                access.database.check_schema()
                yield Reader(access)
                return
    with OptunaStore(url, create_schema=False) as store:
        yield Reader(None, store)
