"""One process's way to Optuna's studies: the storage, its schema, and which studies there are.

Build it after forks only, one per process: a database connection cannot be shared. A study is opened by its spec.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.storages import BaseStorage, InMemoryStorage, _CachedStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from typing_extensions import Self

from highnoon.shared.domain.errors import InvariantBroken, StudyConflict, UnknownStudy
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.space import SearchSpace
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.urls import masked, normalise
from highnoon.shared.search.samplers import Distributions, build_pruner, build_sampler, distributions
from highnoon.shared.store.connecting import connect
from highnoon.shared.store.history import HistoryStorage
from highnoon.shared.store.in_memory import MemoryTrials
from highnoon.shared.store.optuna_outages import reported
from highnoon.shared.store.optuna_sql import SqlTrials, sql_catalogue
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import Trials
from highnoon.shared.store.study_view import StudyEntry, StudyView

SCORING = "highnoon:scoring"
"""Study attribute: what `Scoring.terms` says. Absent where the score is the loss."""

UNSCORED = Scoring()

IN_MEMORY = ("sqlite://", "sqlite:///:memory:")


class OptunaStore:
    """Optuna's studies at one address; without an address, in this process's memory."""

    def __init__(self, url: str | None, *, create_schema: bool = True, **engine_options: Any) -> None:
        """Raises InvalidInput for what is no address, ServiceUnavailable, and SchemaMismatch for foreign tables.

        With `create_schema` missing tables are made, however many processes start at once.
        """
        address = None if url is None else normalise(url)
        self.url = None if address in IN_MEMORY else address
        self._pid = os.getpid()
        self._database: HistoryStorage | None = None
        if self.url is not None:
            with reported(self.url):
                self._database = connect(self.url, create_schema=create_schema, engine_options=engine_options)
        self._storage: BaseStorage = _CachedStorage(self._database) if self._database else InMemoryStorage()

    def create_study(
        self, name: str, direction: str, scoring: Scoring = UNSCORED, space: SearchSpace | None = None
    ) -> int:
        """Makes the study unless it is there; returns Optuna's id of it.

        Raises StudyConflict when it is there and scores in another way, or its own trials have other domains than
        `space`. Trials of other programs decide nothing.
        """
        wanted = StudyDirection[direction.upper()]
        with self._border(), _silently():
            try:
                self._storage.create_new_study([wanted], name)
            except optuna.exceptions.DuplicatedStudyError:
                self._check_direction(name, wanted)
            self._agree_on_scoring(name, scoring)
            study_id = self._id_of(name)
            if space is not None:
                _check_domains(name, space, self._trials_of(study_id).own_domains())
            return study_id

    def open(self, spec: StudySpec) -> OptunaStudy:
        """The study of that name. Raises UnknownStudy, or StudyConflict when it has another direction."""
        with self._border():
            study_id = self._id_of(spec.name)
            self._check_direction(spec.name, StudyDirection[spec.direction.upper()])
            trials = self._trials_of(study_id)
            study = optuna.Study(
                study_name=spec.name,
                storage=self._storage,
                sampler=build_sampler(spec.sampler),
                pruner=build_pruner(spec.pruner),
            )
        return OptunaStudy(spec, study, trials, self._border)

    def exists(self, name: str) -> bool:
        """Whether there is a study of that name."""
        with self._border():
            try:
                self._storage.get_study_id_from_name(name)
            except KeyError:
                return False
            return True

    def view(self, name: str) -> StudyView:
        """A study to read, whoever made it. Raises UnknownStudy, ServiceUnavailable."""
        with self._border():
            self._id_of(name)
            return StudyView(optuna.load_study(study_name=name, storage=self._storage), self._border)

    def catalogue(self) -> list[StudyEntry]:
        """All studies with one objective, oldest first, their trials counted but not loaded."""
        with self._border():
            if self._database is not None:
                return sql_catalogue(self._database.engine)
            return [_entry(study, self._storage) for study in self._storage.get_all_studies()]

    def delete_study(self, name: str) -> None:
        """Removes Optuna's study with all trials. Raises UnknownStudy."""
        with self._border():
            self._storage.delete_study(self._id_of(name))

    def close(self) -> None:
        """Gives the connections back. The store cannot be used afterwards."""
        if self._database is not None:
            self._database.remove_session()
            self._database.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _border(self) -> Iterator[None]:
        """Everything that reaches the storage passes here: no foreign error leaves, no forked copy enters."""
        if os.getpid() != self._pid:
            raise InvariantBroken("an OptunaStore was used after a fork; each process builds its own")
        with reported(self.url or "in memory"):
            yield

    def _trials_of(self, study_id: int) -> Trials:
        if self._database is not None:
            return SqlTrials(self._database.engine, study_id)
        return MemoryTrials(self._storage, study_id)

    def _id_of(self, name: str) -> int:
        try:
            return self._storage.get_study_id_from_name(name)
        except KeyError:
            where = masked(self.url) if self.url else "memory"
            raise UnknownStudy(f"no study {name!r} in {where}") from None

    def _check_direction(self, name: str, wanted: StudyDirection) -> None:
        directions = self._storage.get_study_directions(self._id_of(name))
        if directions != [wanted]:
            found = ", ".join(direction.name.lower() for direction in directions)
            raise StudyConflict(f"study {name!r} exists with direction {found}, not {wanted.name.lower()}")

    def _agree_on_scoring(self, name: str, scoring: Scoring) -> None:
        """The study keeps the scale of its scores; a study without trials takes the first one that it is given."""
        study_id, wanted = self._id_of(name), scoring.terms
        kept = self._storage.get_study_user_attrs(study_id).get(SCORING)
        if kept == wanted:
            return
        if kept is None and not self._storage.get_n_trials(study_id):
            self._storage.set_study_user_attr(study_id, SCORING, wanted)
            return
        raise StudyConflict(
            f"study {name!r} exists and has {_terms_in_words(kept)}, not {_terms_in_words(wanted)}: its scores could "
            "not be compared. Give this one another name, or the same terms"
        )


def _entry(study: FrozenStudy, storage: BaseStorage) -> StudyEntry:
    states = Counter(TrialState[trial.state.name] for trial in storage.get_all_trials(study._study_id, deepcopy=False))
    return StudyEntry(name=study.study_name, direction=study.directions[0].name.lower(), by_state=states)


def quiet() -> None:
    """Optuna says only what is wrong. For processes that are ours: it is a setting of the whole process."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def _silently() -> Iterator[None]:
    """For one call: Optuna announces each new study on stderr."""
    before = optuna.logging.get_verbosity()
    quiet()
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _terms_in_words(terms: Mapping[str, Any] | None) -> str:
    return "no param_budget" if terms is None else " and ".join(f"{key} {value}" for key, value in terms.items())


def _check_domains(study: str, space: SearchSpace, stored: Distributions) -> None:
    """Optuna refuses a parameter of another kind or with other choices, ranges may change. We write past its check."""
    for name, domain in distributions(space).items():
        try:
            if name in stored:
                check_distribution_compatibility(stored[name], domain)
        except ValueError:
            raise StudyConflict(
                f"study {study!r} exists and has parameter {name!r} as {stored[name]}, not as {domain}"
            ) from None
