"""What pages and API read: the ledger's studies and Optuna's others as one list, and their trials from a cache.

Owns the connections and what is kept between two requests. Changes nothing: `actions` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Lock

from highnoon.shared.domain.errors import UnknownStudy, nearest
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.queries import LedgerQueries
from highnoon.shared.store.study_catalogue import StudyEntry
from highnoon.shared.store.study_view import StudyView
from highnoon.shared.views.studies import StudySummary
from highnoon.webui.study_trials import StudyTrials

FRESH_S = 1.0
"""How old an answer about trials may be: several figures of one page share one reading of the database."""

_MOST_BYTES = 300_000_000
"""Of trials of all studies together; the one that was asked for last is kept, however large it is."""

_MOST_WARMED = 20_000
"""Trials that are read before anybody asks for them."""

_FOLLOWED_S = 20.0
"""An open page of a study that runs asks again sooner."""

_LONG_AGO = -1e9
_LATELY_S = 3600.0


@dataclass(slots=True)
class _CacheEntry:
    """What is kept of one study."""

    identity: tuple[object, ...]
    view: StudyView
    lock: Lock = field(default_factory=Lock)
    read_at: float = _LONG_AGO
    asked_at: float = _LONG_AGO
    is_overtaken: bool = False
    """Whether the study was changed since the reading of `trials` began."""
    trials: StudyTrials | None = None
    ranking: Lock = field(default_factory=Lock)
    importance: dict[int, tuple[int, dict[str, float]]] = field(default_factory=dict)
    """By the place of the objective, with the number of ended trials that it was computed from."""


class StudyRepository:
    """The readings of one process. Every method raises ServiceUnavailable while the database is away."""

    def __init__(self, address: Callable[[], str]) -> None:
        self._address = address
        self._lock = Lock()
        self._open: tuple[str, Access, ExitStack] | None = None
        self._entries: dict[str, _CacheEntry] = {}
        """The one that was asked for last stands last."""
        self._best: dict[str, tuple[StudyEntry, float | None]] = {}
        self._over: dict[int | None, StudySummary] = {}
        self._has_ledger = False
        self._studies: tuple[float, list[StudySummary]] | None = None
        self._changes = 0

    def access(self) -> Access:
        """The database at its present address; opened again when the address has changed."""
        url = self._address()
        with self._lock:
            if self._open is not None and self._open[0] == url:
                return self._open[1]
            self._disconnect()
            with ExitStack() as stack:
                access = stack.enter_context(opened(url))
                access.store  # noqa: B018 - a database without studies is reported at once, whatever is asked for
                self._open = (url, access, stack.pop_all())
            return access

    def close(self) -> None:
        """Gives the connections back."""
        with self._lock:
            self._disconnect()

    def queries(self) -> LedgerQueries:
        """The ledger's aggregates. Raises ServiceUnavailable where there is no ledger."""
        access = self.access()
        if not self.has_ledger():
            access.database.check_schema()
        return LedgerQueries(access.database)

    def nodes(self) -> Nodes:
        """Presence of workers."""
        return Nodes(self.access().database)

    def has_ledger(self) -> bool:
        """Whether a coordinator has ever used this database; kept once it has."""
        access = self.access()
        if not self._has_ledger:
            self._has_ledger = LedgerQueries(access.database).has_ledger()
            if self._has_ledger:
                access.database.check_schema()
        return self._has_ledger

    def studies(self) -> list[StudySummary]:
        """All studies, newest first; those that only Optuna knows last. At most `FRESH_S` old."""
        self.access()  # of another address nothing is kept
        kept, changes = self._studies, self._changes
        if kept is not None and time.monotonic() - kept[0] <= FRESH_S:
            return kept[1]
        found = self._of_ledger() if self.has_ledger() else []
        ours = {study.name for study in found}
        others = [entry for entry in self.catalogue() if entry.name not in ours]
        found += [StudySummary.of_optuna(entry, self._best_of(entry)) for entry in reversed(others)]
        self._drop({study.name for study in found})
        # Not kept where a change overtook the reading.
        self._studies = (time.monotonic(), found) if self._changes == changes else None
        return found

    def _of_ledger(self) -> list[StudySummary]:
        """The tickets of studies that ended an hour ago are counted once: all of them take a second per million."""
        access, over = self.access(), self._over
        queries = LedgerQueries(access.database)
        counted = queries.progress(ended_within_s=_LATELY_S if over else None)
        fresh = {one.record.id: StudySummary.of_ledger(one) for one in counted}
        found = []
        for record in reversed(access.studies.all()):
            study = fresh.get(record.id) or over.get(record.id)
            if study is None or (record.id not in fresh and study.record != record):
                study = StudySummary.of_ledger(queries.progress_of(record))
            found.append(study)
        self._over = {study.id: study for study in found if study.is_over}
        return found

    def catalogue(self) -> list[StudyEntry]:
        """All of Optuna's studies, oldest first; none where coordinators run all of them, to count no trials."""
        if self.has_ledger() and not self.queries().has_others():
            return []
        return self.access().store.catalogue()

    def study(self, key: str, *, fresh: bool = False) -> StudySummary:
        """The study of that name, else of that id; `fresh` before a change. Raises UnknownStudy."""
        found = None if fresh else _named(key, self.studies())
        if found is None:
            self._studies = None
            found = _named(key, self.studies())
        if found is None:
            hint = nearest(key, [study.name for study in self.studies()])
            raise UnknownStudy(f"There is no study named {key!r}. {hint}".rstrip())
        return found

    def trials(self, name: str) -> StudyTrials:
        """The trials, at most `FRESH_S` old. Raises UnknownStudy."""
        entry = self._entry(name)
        with entry.lock:
            if entry.trials is None or entry.is_overtaken or time.monotonic() - entry.read_at > FRESH_S:
                store = self.access().store
                if (identity := store.identity(name)) != entry.identity:  # it was deleted, and made again
                    entry.identity, entry.view, entry.trials = identity, store.view(name), None
                    entry.importance.clear()
                entry.is_overtaken = False
                entry.trials = StudyTrials.read(entry.view, entry.trials)
                entry.read_at = time.monotonic()
                self._make_room()
            return entry.trials

    def view(self, name: str) -> StudyView:
        """The study, with the trials that were read before. Raises UnknownStudy."""
        self.trials(name)
        return self._entry(name).view

    def importance(self, name: str, objective: int = 0) -> dict[str, float]:
        """How much each parameter mattered: computed once for each state of the study's ended trials."""
        ended = self.trials(name).version[1]
        entry = self._entry(name)
        with entry.ranking:  # several figures of a page ask at once
            if entry.importance.get(objective, (-1, {}))[0] != ended:
                entry.importance[objective] = (ended, entry.view.param_importance(objective))
            return entry.importance[objective][1]

    def warm(self) -> None:
        """Reads the newest studies once, so that the first request need not wait for thousands of trials.

        And computes an importance: what Optuna imports for it takes seconds.
        """
        studies = self.studies()
        room = _MOST_WARMED
        for study in studies:
            with suppress(UnknownStudy):  # deleted meanwhile
                self.trials(study.name)
            room -= study.total
            if room <= 0:
                break
        for study in studies[:1]:
            self.importance(study.name)

    def invalidate(self, name: str) -> None:
        """The study was changed: the next reading goes to the database."""
        with self._lock:
            entry = self._entries.get(name)
        self._changes += 1
        self._studies = None
        if entry is not None:
            entry.is_overtaken = True

    def remove(self, name: str) -> None:
        """The study was deleted, and another one of its name may be created."""
        with self._lock:
            self._entries.pop(name, None)
        self._changes += 1
        self._studies = None

    def _entry(self, name: str) -> _CacheEntry:
        access = self.access()
        with self._lock:
            known = self._entries.pop(name, None)
            if known is None:
                store = access.store
                known = _CacheEntry(identity=store.identity(name), view=store.view(name))
            self._entries[name] = known
            known.asked_at = time.monotonic()
            return known

    def _make_room(self) -> None:
        """Drops the studies that were not asked for longest, while all together take too much memory.

        None that an open page follows: two large ones would be read again and again.
        """
        with self._lock:
            sizes = {name: entry.trials.size_bytes for name, entry in self._entries.items() if entry.trials is not None}
            taken = sum(sizes.values())
            for name, size in list(sizes.items())[:-1]:
                if taken > _MOST_BYTES and time.monotonic() - self._entries[name].asked_at >= _FOLLOWED_S:
                    del self._entries[name]
                    taken -= size

    def _drop(self, known: set[str]) -> None:
        """Drops what is kept of studies that are no more."""
        with self._lock:
            for kept in (self._entries, self._best):
                for name in kept.keys() - known:
                    del kept[name]

    def _best_of(self, entry: StudyEntry) -> float | None:
        """Read when another trial of the study has ended; all trials only where the best one is infeasible."""
        if len(entry.directions) > 1 or not entry.by_state.get(TrialState.COMPLETE):
            return None
        known = self._best.get(entry.name)
        if known is None or known[0] != entry:
            best: list[Trial] = []
            with suppress(UnknownStudy):  # deleted meanwhile
                best = self.access().store.view(entry.name).best()
            known = self._best[entry.name] = (entry, best[0].value if best else None)
        return known[1]

    def _disconnect(self) -> None:
        if self._open is not None:
            self._open[2].close()
        self._open = None
        self._entries.clear()
        self._best.clear()
        self._over = {}
        self._has_ledger = False
        self._studies = None


def _named(key: str, studies: list[StudySummary]) -> StudySummary | None:
    by_id = (study for study in studies if str(study.id) == key)
    return next((study for study in studies if study.name == key), None) or next(by_id, None)
