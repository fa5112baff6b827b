"""One process's way to Optuna's studies: the storage, its schema, and which studies there are.

Build it after forks only, one per process: a database connection cannot be shared. A study is opened by its spec.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage, _CachedStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from typing_extensions import Self

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.errors import (
    InvalidInput,
    MissingExtra,
    ServiceRefused,
    UnknownStudy,
    UserInputError,
    nearest,
)
from highnoon.shared.domain.metric_history import Curves, curves_in
from highnoon.shared.domain.param import SearchSpace
from highnoon.shared.domain.sampler_spec import WARMED, SamplerSpec
from highnoon.shared.domain.score import UNSCORED, Scoring
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.urls import masked, normalise
from highnoon.shared.search.population import SegmentPruner
from highnoon.shared.search.samplers import build_pruner, build_sampler, distributions
from highnoon.shared.search.sampling_space import suited
from highnoon.shared.store import study_agreement as agreement
from highnoon.shared.store.database import autocommit
from highnoon.shared.store.history import HistoryStorage
from highnoon.shared.store.in_memory import MemoryTrials
from highnoon.shared.store.optuna_connection import connect
from highnoon.shared.store.optuna_sql import SqlTrials
from highnoon.shared.store.optuna_statements import FIRST_START
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import Trials
from highnoon.shared.store.outages import first_line, service_error
from highnoon.shared.store.study_catalogue import StudyEntry, sql_catalogue, storage_catalogue
from highnoon.shared.store.study_view import StudyView

IN_MEMORY = ("sqlite://", "sqlite:///:memory:")


class OptunaStore:
    """Optuna's studies at one address; without an address, in this process's memory."""

    def __init__(
        self,
        url: str | None,
        *,
        create_schema: bool = True,
        reads_running_reports: bool = True,
        engine: Engine | None = None,
    ) -> None:
        """Raises InvalidInput for what is no address, ServiceUnavailable, and SchemaMismatch for foreign tables.

        With `create_schema` missing tables are made, however many processes start at once. Without
        `reads_running_reports` trials that have not ended have no reports: samplers and pruners need none. An `engine`
        of the same PostgreSQL lends its connections, and is not closed here.
        """
        address = None if url is None else normalise(url)
        self.url = None if address in IN_MEMORY else address
        self._pid = os.getpid()
        self._owns_connections = engine is None
        self._database: HistoryStorage | None = None
        if self.url is not None:
            with _reported(self.url):
                self._database = connect(self.url, create_schema=create_schema, engine=engine)
            self._database.reads_running_reports = reads_running_reports
        self._storage: BaseStorage = _CachedStorage(self._database) if self._database else InMemoryStorage()

    def create_study(
        self, name: str, direction: str, scoring: Scoring = UNSCORED, space: SearchSpace | None = None
    ) -> int:
        """Makes the study unless it is there; returns Optuna's id of it.

        Raises StudyConflict when it is there and scores in another way, or has trials and may not change its space to
        `space` (`space_change`). Trials of other programs decide nothing.
        """
        ways = scoring.directions if scoring.objectives else (direction,)
        with self._error_boundary(), _silently():
            study_id = self._created_or_joined(name, ways)
            agreement.agree_on_scoring(self._storage, study_id, name, scoring)
            if scoring.objectives:
                agreement.agree_on_objectives(self._storage, study_id, name, list(scoring.objectives))
            if space:
                domains = self._trials_of(study_id).own_domains()
                agreement.agree_on_space(self._storage, study_id, name, space, domains)
            return study_id

    def open(
        self, spec: StudySpec, *, sampler: BaseSampler | None = None, pruner: BasePruner | None = None
    ) -> OptunaStudy:
        """The study of that name, with this sampler and pruner instead of those that its specification names.

        Raises UnknownStudy, MissingExtra, StudyConflict when it has another direction.
        """
        with self._error_boundary():
            study_id = self._id_of(spec.name)
            agreement.check_directions(self._storage, study_id, spec.name, spec.scoring.directions)
            trials = self._trials_of(study_id)
            study = optuna.Study(
                study_name=spec.name,
                storage=self._storage,
                sampler=sampler
                or build_sampler(suited(spec.sampler, spec.search_space), distributions(spec.search_space), spec.seed),
                pruner=pruner or _pruner_of(spec),
            )
            earlier = [trial for name in spec.warm_start for trial in self._ended_of(name)]
        return OptunaStudy(spec, study, trials, self._error_boundary, earlier, has_given_sampler=sampler is not None)

    def open_to_read(self, spec: StudySpec) -> OptunaStudy:
        """The study of that name, also where what its sampler or pruner needs is missing: then it has others.

        Raises UnknownStudy, StudyConflict as `open`.
        """
        try:
            return self.open(spec)
        except MissingExtra:
            return self.open(spec, sampler=RandomSampler(), pruner=NopPruner())

    def check_warm_start(self, spec: StudySpec) -> None:
        """Raises UnknownStudy, StudyConflict for a study whose values cannot be compared with this study's, and
        InvalidInput for a new study with a sampler that would make nothing of it."""
        sampler = spec.sampler.name
        is_unused = spec.warm_start and sampler in SamplerSpec.kinds and sampler not in WARMED
        if is_unused and not self.exists(spec.name):  # an earlier version has accepted what is there
            message, hint = f"is not used by the sampler {sampler}", f"Samplers that use it: {', '.join(WARMED)}."
            raise InvalidInput.of(f"study {spec.name}", "warm_start", message, value=list(spec.warm_start), hint=hint)
        with self._error_boundary():
            for name in spec.warm_start:
                try:
                    study_id = self._id_of(name)
                except UnknownStudy as unknown:
                    hint = nearest(name, (study.study_name for study in self._storage.get_all_studies()))
                    raise UnknownStudy(f"warm_start: {unknown}. {hint}".rstrip()) from None
                agreement.check_comparable(self._storage, study_id, name, spec.scoring)

    def exists(self, name: str) -> bool:
        """Whether there is a study of that name."""
        with self._error_boundary():
            try:
                self._storage.get_study_id_from_name(name)
            except KeyError:
                return False
            return True

    def view(self, name: str) -> StudyView:
        """A study to read, also one of another program, which keeps its trials. Raises UnknownStudy."""
        with self._error_boundary():
            self._id_of(name)
            storage = _CachedStorage(self._database) if self._database else self._storage
            return StudyView(optuna.load_study(study_name=name, storage=storage), self._error_boundary)

    def identity(self, name: str) -> tuple[object, ...]:
        """Another one for a study that was made after the one of that name was deleted. Raises UnknownStudy."""
        with self._error_boundary():
            study_id = self._id_of(name)
            if self._database is None or self._database.engine.dialect.name != "sqlite":
                return (study_id,)
            with autocommit(self._database.engine) as connection:  # SQLite gives ids of deleted rows again
                return (study_id, connection.scalar(FIRST_START, {"study": study_id}))

    def artifacts(self, name: str, number: int | None = None) -> dict[int, list[Artifact]]:
        """Of a study's trials, by number, as they are now; also of other programs' trials. Raises UnknownStudy."""
        with self._error_boundary():
            return self._trials_of(self._id_of(name)).artifacts(number)

    def metric_history(self, name: str, number: int) -> Curves:
        """The curves of a trial without a ticket, also of a study without a ledger. Raises UnknownStudy."""
        with self._error_boundary():
            return curves_in(self._trials_of(self._id_of(name)).metric_history(number))

    def catalogue(self) -> list[StudyEntry]:
        """All studies, oldest first, their trials counted but not loaded."""
        with self._error_boundary():
            if self._database is not None:
                return sql_catalogue(self._database.engine)
            return storage_catalogue(self._storage)

    def forget_histories(self) -> None:
        """Drops the trials that were read: Optuna's storage keeps the trials of each study until it is deleted.

        Studies that are open keep theirs. In memory nothing is dropped, since there the storage is the study.
        """
        if self._database is not None:
            self._storage = _CachedStorage(self._database)
            self._database.expect_whole_histories()

    def close(self) -> None:
        """Gives the connections back. The store cannot be used afterwards."""
        if self._database is not None:
            self._database.remove_session()
            if self._owns_connections:
                self._database.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _error_boundary(self) -> Iterator[None]:
        """All access to the storage: raises our own errors only, and refuses a forked copy."""
        if os.getpid() != self._pid:
            raise UserInputError(
                "this study was opened before a fork, and its connections belong to the other process: open it again "
                "in each process, by an HPOTrialManager of its own"
            )
        with _reported(self.url or "in memory"):
            yield

    def _created_or_joined(self, name: str, ways: Sequence[str]) -> int:
        try:
            return self._storage.create_new_study([StudyDirection[way.upper()] for way in ways], name)
        except optuna.exceptions.DuplicatedStudyError:
            study_id = self._id_of(name)
            agreement.check_directions(self._storage, study_id, name, ways)
            return study_id

    def _ended_of(self, name: str) -> list[FrozenTrial]:
        """Empty for a study that was deleted since."""
        try:
            study_id = self._storage.get_study_id_from_name(name)
        except KeyError:
            return []
        ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        return self._storage.get_all_trials(study_id, deepcopy=False, states=ended)

    def _trials_of(self, study_id: int) -> Trials:
        if self._database is not None:
            return SqlTrials(self._database.engine, study_id)
        assert isinstance(self._storage, InMemoryStorage)
        return MemoryTrials(self._storage, study_id)

    def _id_of(self, name: str) -> int:
        try:
            return self._storage.get_study_id_from_name(name)
        except (KeyError, ValueError):  # or what no text of a database can be
            where = masked(self.url) if self.url else "memory"
            raise UnknownStudy(f"no study {name!r} in {where}") from None


def _pruner_of(spec: StudySpec) -> BasePruner:
    """What ends its trials before their end; until a pruner's rungs are known nothing does."""
    if spec.sampler.goes_on_from_checkpoints:
        return SegmentPruner(spec.sampler.options["perturbation_interval"])
    return build_pruner(spec.pruner) or NopPruner()


def quiet() -> None:
    """Optuna logs warnings and errors only. For our own processes: it is a setting of the whole process."""
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


@contextmanager
def _reported(url: str) -> Iterator[None]:
    """Raises ServiceUnavailable for a lost connection, a lock not granted in time, a deadlock: try again later.

    ServiceRefused for what the database does not take, with the driver's words and without the statement.
    """
    try:
        yield
    except (DBAPIError, PoolTimeout, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        known = service_error(url, cause)
        if known is None and isinstance(cause, DBAPIError):
            known = ServiceRefused(f"database {masked(url)}: {first_line(cause)}")
        if known is None:
            raise
        raise known from None
