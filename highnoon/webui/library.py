"""What pages and API read: the ledger's studies and Optuna's others as one list, and their trials from a cache.

Owns the connections and what is remembered between two requests. Changes nothing: `steering` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Lock

from highnoon.shared.domain.errors import UnknownStudy, nearest
from highnoon.shared.domain.states import TrialState
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.overview import Overview
from highnoon.shared.store.study_view import StudyEntry, StudyView
from highnoon.webui.snapshot import Snapshot, taken
from highnoon.webui.studies import Study, named, of_ledger, of_optuna

FRESH_S = 1.0
"""How old an answer about trials may be: several figures of one page share one look at the database."""


@dataclass(slots=True)
class _Shelf:
    """What is remembered of one study."""

    view: StudyView
    lock: Lock = field(default_factory=Lock)
    seen_at: float = -1e9
    snapshot: Snapshot | None = None
    importance: tuple[tuple[int, int, int], dict[str, float]] | None = None


class Library:
    """One process's reading room. Every method raises ServiceUnavailable while the database is away."""

    def __init__(self, address: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._address = address
        self._clock = clock
        self._lock = Lock()
        self._open: tuple[str, Access, ExitStack] | None = None
        self._shelves: dict[str, _Shelf] = {}
        self._has_ledger = False
        self._studies: tuple[float, list[Study]] | None = None

    def access(self) -> Access:
        """The database as it is reached now; opened again when its address has changed."""
        url = self._address()
        with self._lock:
            if self._open is not None and self._open[0] == url:
                return self._open[1]
            self._drop()
            with ExitStack() as stack:
                access = stack.enter_context(opened(url))
                access.store  # noqa: B018 - a database without studies is told of at once, whatever is asked for
                self._open = (url, access, stack.pop_all())
            return access

    def close(self) -> None:
        """Gives the connections back."""
        with self._lock:
            self._drop()

    def overview(self) -> Overview:
        """What the ledger tells. Raises ServiceUnavailable where there is no ledger."""
        access = self.access()
        if not self.has_ledger():
            access.database.check_schema()
        return Overview(access.database)

    def nodes(self) -> Nodes:
        """Presence of workers."""
        return Nodes(self.access().database)

    def has_ledger(self) -> bool:
        """Whether a coordinator has ever used this database; remembered once it has."""
        access = self.access()
        if not self._has_ledger:
            self._has_ledger = Overview(access.database).has_ledger()
            if self._has_ledger:
                access.database.check_schema()
        return self._has_ledger

    def studies(self) -> list[Study]:
        """All studies, newest first; those that only Optuna knows last. At most `FRESH_S` old."""
        access = self.access()
        kept = self._studies
        if kept is not None and self._clock() - kept[0] <= FRESH_S:
            return kept[1]
        standings = Overview(access.database).standings() if self.has_ledger() else []
        ours = {standing.record.name for standing in standings}
        others = [entry for entry in access.store.catalogue() if entry.name not in ours]
        found = [
            *map(of_ledger, reversed(standings)),
            *(of_optuna(entry, self._best_of(entry)) for entry in reversed(others)),
        ]
        self._studies = (self._clock(), found)
        return found

    def study(self, key: str, *, fresh: bool = False) -> Study:
        """The study of that name, else of that id; `fresh` for who is about to change it. Raises UnknownStudy."""
        found = None if fresh else named(key, self.studies())
        if found is None:
            self._studies = None
            found = named(key, self.studies())
        if found is not None:
            return found
        studies = self.studies()
        raise UnknownStudy(
            f"There is no study named {key!r}. {nearest(key, [study.name for study in studies])}".rstrip()
        )

    def snapshot(self, name: str) -> Snapshot:
        """The trials, at most `FRESH_S` old. Raises UnknownStudy."""
        shelf = self._shelf(name)
        with shelf.lock:
            if shelf.snapshot is None or self._clock() - shelf.seen_at > FRESH_S:
                shelf.snapshot = taken(shelf.view, shelf.snapshot)
                shelf.seen_at = self._clock()
            return shelf.snapshot

    def importance(self, name: str) -> dict[str, float]:
        """How much each parameter mattered: computed once for each state of the study's ended trials."""
        snapshot = self.snapshot(name)
        shelf = self._shelf(name)
        if shelf.importance is None or shelf.importance[0][1] != snapshot.version[1]:
            shelf.importance = (snapshot.version, shelf.view.param_importance())
        return shelf.importance[1]

    def warm(self) -> None:
        """Reads every study once, so that nobody waits for the first look at thousands of trials.

        And asks for an importance: what Optuna imports for it takes seconds.
        """
        studies = self.studies()
        for study in studies:
            with suppress(UnknownStudy):  # deleted behind the ledger's back
                self.snapshot(study.name)
        for study in studies[:1]:
            self.importance(study.name)

    def forget(self, name: str) -> None:
        """Somebody changed the study: the next look is a new one."""
        with self._lock:
            shelf = self._shelves.get(name)
        self._studies = None
        if shelf is not None:
            shelf.seen_at = -1e9

    def drop(self, name: str) -> None:
        """The study is gone, and one of its name may come."""
        with self._lock:
            self._shelves.pop(name, None)
        self._studies = None

    def _shelf(self, name: str) -> _Shelf:
        access = self.access()
        with self._lock:
            known = self._shelves.get(name)
            if known is None:
                known = self._shelves[name] = _Shelf(view=access.store.view(name))
            return known

    def _best_of(self, entry: StudyEntry) -> float | None:
        best = self.snapshot(entry.name).best if entry.by_state.get(TrialState.COMPLETE) else None
        return None if best is None else best.value

    def _drop(self) -> None:
        if self._open is not None:
            self._open[2].close()
        self._open = None
        self._shelves.clear()
        self._has_ledger = False
        self._studies = None
