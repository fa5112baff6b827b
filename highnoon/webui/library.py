"""What pages and API read: the ledger's studies and Optuna's others as one list, and their trials from a cache.

Owns the connections and what is remembered between two requests. Changes nothing: `steering` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from shared.access import Access, opened
from shared.errors import UnknownStudy, nearest
from shared.ledger import Nodes, Overview
from shared.ledger.overview import Standing
from shared.ledger.studies import StudyRecord
from shared.space import SearchSpace, written_form
from shared.states import INFRASTRUCTURE_ENDINGS, Ending, StudyState, TicketState, TrialState
from shared.studies import StudyEntry, StudyView
from shared.trial import Trial

FRESH_S = 1.0
"""How old an answer about trials may be: several figures of one page share one look at the database."""

CAUSE, ENDING, MESSAGE, TICKET = "highnoon:cause", "highnoon:ending", "highnoon:message", "highnoon:ticket"
LOSS, PARAMS = "highnoon:loss", "highnoon:params"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study, whoever made it. `record` is None for one that no coordinator knows: such a one is only read."""

    name: str
    direction: str
    total: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    best: float | None
    record: StudyRecord | None = None

    @property
    def state(self) -> str:
        """The ledger's word; `external` for a study that is steered elsewhere."""
        return "external" if self.record is None else str(self.record.state)

    @property
    def id(self) -> int | None:
        """The ledger's id."""
        return None if self.record is None else self.record.id

    @property
    def over(self) -> int:
        """Trials that have ended."""
        return self.complete + self.pruned + self.failed

    @property
    def is_live(self) -> bool:
        """Whether something about it may change by itself."""
        return self.running > 0 or (self.record is not None and not self.record.is_over)

    @property
    def spec(self) -> Mapping[str, Any]:
        """What a person decided; empty for a study of somebody else."""
        return {} if self.record is None else self.record.spec

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A study's trials at one moment; `version` changes whenever any of them did."""

    trials: tuple[Trial, ...]
    space: SearchSpace
    maximize: bool
    version: tuple[int, int, int]

    @property
    def best(self) -> Trial | None:
        """The best completed trial."""
        return best_of(self.trials, maximize=self.maximize)

    @property
    def written_space(self) -> dict[str, Any]:
        """The search space in the grammar of a study file."""
        return {name: written_form(param) for name, param in self.space.items()}


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
            stack = ExitStack()
            access = stack.enter_context(opened(url))
            self._open = (url, access, stack)
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
        found = [*map(_of_ledger, reversed(standings)), *(self._of_optuna(entry) for entry in reversed(others))]
        self._studies = (self._clock(), found)
        return found

    def study(self, key: str, *, fresh: bool = False) -> Study:
        """The study of that name, else of that id; `fresh` for who is about to change it. Raises UnknownStudy."""
        found = None if fresh else _named(key, self.studies())
        if found is None:
            self._studies = None
            found = _named(key, self.studies())
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
                shelf.snapshot = _snapshot(shelf.view, shelf.snapshot)
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

    def _of_optuna(self, entry: StudyEntry) -> Study:
        best = self.snapshot(entry.name).best if entry.by_state.get(TrialState.COMPLETE) else None
        return Study(
            name=entry.name,
            direction=entry.direction,
            total=entry.total,
            complete=entry.by_state.get(TrialState.COMPLETE, 0),
            pruned=entry.by_state.get(TrialState.PRUNED, 0),
            failed=entry.by_state.get(TrialState.FAIL, 0),
            running=entry.by_state.get(TrialState.RUNNING, 0),
            waiting=entry.by_state.get(TrialState.WAITING, 0),
            best=None if best is None else best.value,
        )

    def _drop(self) -> None:
        if self._open is not None:
            self._open[2].close()
        self._open = None
        self._shelves.clear()
        self._has_ledger = False
        self._studies = None


def _named(key: str, studies: Sequence[Study]) -> Study | None:
    by_id = (study for study in studies if str(study.id) == key)
    return next((study for study in studies if study.name == key), None) or next(by_id, None)


def best_of(trials: tuple[Trial, ...], *, maximize: bool) -> Trial | None:
    """The best completed trial that has a value; the first of equals."""
    valued = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    if not valued:
        return None
    return (max if maximize else min)(valued, key=lambda trial: trial.value or 0.0)


def cause_of(trial: Trial) -> str:
    """Why a trial ended early; empty when there is nothing to explain."""
    return str(trial.attrs.get(CAUSE) or "")


def ending_of(trial: Trial) -> str:
    """How its attempt ended, in the ledger's words; Optuna's where there are none."""
    return str(trial.attrs.get(ENDING) or trial.state.lower())


def _snapshot(view: StudyView, before: Snapshot | None) -> Snapshot:
    trials = tuple(view.trials())
    ended = sum(trial.state in _ENDED for trial in trials)
    reports = sum(len(trial.reports) for trial in trials if trial.state is TrialState.RUNNING)
    version = (len(trials), ended, reports)
    if before is not None and before.version == version:
        return before
    return Snapshot(trials=trials, space=view.space(), maximize=view.direction == "maximize", version=version)


_ENDED = frozenset({TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL})


def _of_ledger(standing: Standing) -> Study:
    counts = standing.counts
    failed = {Ending.FAILED, Ending.TIMED_OUT, *INFRASTRUCTURE_ENDINGS}
    return Study(
        name=standing.record.name,
        direction=standing.record.spec["direction"],
        total=counts.total - counts.by_state.get(TicketState.CANCELLED, 0),
        complete=counts.by_ending.get(Ending.COMPLETED, 0),
        pruned=counts.by_ending.get(Ending.PRUNED, 0) + counts.by_ending.get(Ending.STOPPED, 0),
        failed=sum(count for ending, count in counts.by_ending.items() if ending in failed),
        running=counts.running,
        waiting=sum(counts.by_state.get(state, 0) for state in (TicketState.WAITING, TicketState.QUEUED)),
        best=standing.best_value,
        record=standing.record,
    )


STATES = (*(str(state) for state in StudyState), "external")
"""What `Study.state` may be."""
