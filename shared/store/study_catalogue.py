"""The catalogue of a database: every study, made by us or by another program, its trials counted by state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from optuna.storages import BaseStorage
from sqlalchemy import Engine

from highnoon.shared.domain.states import TrialState
from highnoon.shared.store.database import autocommit
from highnoon.shared.store.optuna_statements import CATALOGUE


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEntry:
    """One line of the catalogue of a database: a study with its trials counted by state."""

    name: str
    directions: tuple[str, ...]
    by_state: Mapping[TrialState, int]
    ended_at: datetime | None = None
    """When the last trial ended, as the storage has it: to see that something has changed."""

    @property
    def direction(self) -> str:
        """`minimize` or `maximize`; several of them where the study has several objectives."""
        return ", ".join(self.directions)

    @property
    def total(self) -> int:
        """All trials that it ever had."""
        return sum(self.by_state.values())


def sql_catalogue(engine: Engine) -> list[StudyEntry]:
    """Every study, oldest first, its trials counted in one statement."""
    with autocommit(engine) as connection:
        rows = connection.execute(CATALOGUE).all()
    found: dict[str, tuple[dict[int, str], dict[TrialState, int], set[datetime]]] = {}
    for name, objective, direction, state, count, ended_at in rows:
        ways, by_state, ends = found.setdefault(name, ({}, {}, set()))
        ways[objective] = direction.name.lower()
        if state is not None:
            by_state[TrialState[state.name]] = count
        if ended_at is not None:
            ends.add(ended_at)
    return [
        StudyEntry(
            name=name,
            directions=tuple(ways[place] for place in sorted(ways)),
            by_state=by_state,
            ended_at=max(ends, default=None),
        )
        for name, (ways, by_state, ends) in found.items()
    ]


def storage_catalogue(storage: BaseStorage) -> list[StudyEntry]:
    """The same of any storage of Optuna, in memory for example; reads all trials."""
    found = []
    for study in storage.get_all_studies():
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        directions = tuple(direction.name.lower() for direction in study.directions)
        states = Counter(TrialState[trial.state.name] for trial in trials)
        found.append(StudyEntry(name=study.study_name, directions=directions, by_state=states))
    return found
