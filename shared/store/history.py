"""Reading Optuna's tables: an RDBStorage whose history costs two statements instead of seven, and no ORM.

`_CachedStorage` reads what is new or unfinished through `_get_trials`. Only that method is replaced, so that
every sampler, pruner and plot profits and gets just what Optuna's own reading gives. Writes nothing.

Pinned to Optuna 5.0.x (schema v3.2.0.a); the contract tests compare this reading with Optuna's own.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from enum import IntEnum
from functools import lru_cache
from sys import intern
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel, TrialIntermediateValueModel, TrialValueModel
from optuna.storages._rdb.storage import _VersionManager
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    String,
    Table,
    bindparam,
    cast,
    literal,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import scoped_session, sessionmaker

from highnoon.shared.domain.metric_history import METRIC_HISTORY
from highnoon.shared.store.connections import READING_S, allow_longer, allows
from highnoon.shared.store.database import autocommit
from highnoon.shared.store.optuna_tables import params, reports, system_attrs, trials, user_attrs, values

_AT_ONCE = 1000
"""Trials per statement. SQLite takes 32,766 variables, and each trial is five of them."""


_MOST_SHARED = 256


class _Detail(IntEnum):
    """What a row of the second statement is about."""

    PARAM = 0
    VALUE = 1
    USER_ATTR = 2
    SYSTEM_ATTR = 3
    REPORT = 4


class HistoryStorage(RDBStorage):
    """Optuna's storage with a faster way to read many trials."""

    reads_running_reports = True
    """False for who only samples and prunes: that uses no reports of trials that have not ended, and reading them again
    and again is what costs most where trials have thousands of steps."""

    def __init__(self, url: str, *, engine: Engine | None = None, **options: Any) -> None:
        """With Optuna's own options, or on the connections of an `engine`: then nothing is read or made here."""
        self._domains: dict[tuple[Any, ...], dict[str, BaseDistribution]] = {}
        self._has_read: set[int] = set()
        if engine is None:
            super().__init__(url, **options)
            return
        # As its constructor has it, which makes an engine with connections of its own.
        self.url, self.engine_kwargs, self.engine = url, {}, engine
        self.skip_compatibility_check = True
        self.heartbeat_interval = self.grace_period = None
        self.heartbeat_stale_trial_callback = self.failed_trial_callback = None
        self.scoped_session = scoped_session(sessionmaker(bind=engine))

    def expect_whole_histories(self) -> None:
        """The next reading of each study is its first one again, with the time that this takes."""
        self._has_read.clear()

    def create_tables(self) -> None:
        """Makes what tables are missing. Raises RuntimeError for those of another version of Optuna."""
        BaseModel.metadata.create_all(self.engine)
        self._version_manager = _VersionManager(self.url, self.engine, self.scoped_session)
        self._version_manager.check_table_schema_compatibility()

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """The study's trials that are newer than an id or among those named, oldest first."""
        named = [trial_id for trial_id in included_trial_ids if trial_id <= trial_id_greater_than]
        wanted = or_(trials.c.trial_id > trial_id_greater_than, trials.c.trial_id.in_(named))
        with self._reading(study_id) as connection:
            rows = connection.execute(_TRIALS.where(trials.c.study_id == study_id, wanted))
            found = {row[0]: _frozen(*row) for row in rows if states is None or row.state in states}
            # Details come after the trials, never before: one that is read as finished is cached for ever, so it
            # must be read whole.
            ids = list(found)
            for start in range(0, len(ids), _AT_ONCE):
                some = ids[start : start + _AT_ONCE]
                reported = [one for one in some if self.reads_running_reports or found[one].state.is_finished()]
                for trial_id, *detail in connection.execute(_DETAILS, {"ids": some, "reported": reported}):
                    _add(found[trial_id], *detail)
            for trial in found.values():
                trial.distributions = self._shared_domains(trial.distributions)
        return list(found.values())

    @contextmanager
    def _reading(self, study_id: int) -> Iterator[Connection]:
        """The first reading may bring a hundred thousand trials, on a connection that is for short statements."""
        if study_id in self._has_read or allows(self.engine, READING_S):
            with autocommit(self.engine) as connection:
                yield connection
            return
        # READ COMMITTED as well: each of its statements reads what was committed before it.
        with self.engine.begin() as connection:
            allow_longer(connection, READING_S)
            yield connection
        self._has_read.add(study_id)

    def _shared_domains(self, domains: dict[str, BaseDistribution]) -> dict[str, BaseDistribution]:
        """One mapping for all trials with the same domains; nothing changes the mapping of a trial that was read."""
        if len(self._domains) > _MOST_SHARED:
            self._domains.clear()
        # A mapping that is kept keeps its objects, so that an id stands for one.
        return self._domains.setdefault((*domains, *map(id, domains.values())), domains)


_TRIALS = select(
    trials.c.trial_id, trials.c.number, trials.c.state, trials.c.datetime_start, trials.c.datetime_complete
).order_by(trials.c.trial_id)


def _details(
    kind: _Detail,
    table: Table,
    position: ColumnElement[int],
    *,
    name: ColumnElement[Any] | None = None,
    number: ColumnElement[Any] | None = None,
    text: ColumnElement[Any],
    of: str = "ids",
) -> Select[Any]:
    return select(
        table.c.trial_id,
        literal(int(kind), literal_execute=True).label("kind"),
        position.label("position"),
        (null() if name is None else name).label("name"),
        (null() if number is None else number).label("number"),
        text.label("text"),
    ).where(table.c.trial_id.in_(bindparam(of, expanding=True)))


_DETAILS = union_all(
    _details(
        _Detail.PARAM,
        params,
        params.c.param_id,
        name=params.c.param_name,
        number=params.c.param_value,
        text=params.c.distribution_json,
    ),
    _details(_Detail.VALUE, values, values.c.objective, number=values.c.value, text=cast(values.c.value_type, String)),
    _details(
        _Detail.USER_ATTR,
        user_attrs,
        user_attrs.c.trial_user_attribute_id,
        name=user_attrs.c.key,
        text=user_attrs.c.value_json,
    ),
    _details(
        _Detail.SYSTEM_ATTR,
        system_attrs,
        system_attrs.c.trial_system_attribute_id,
        name=system_attrs.c.key,
        text=system_attrs.c.value_json,
    ).where(system_attrs.c.key != METRIC_HISTORY),  # read for one trial at a time
    _details(
        _Detail.REPORT,
        reports,
        reports.c.step,
        number=reports.c.intermediate_value,
        text=cast(reports.c.intermediate_value_type, String),
        of="reported",
    ),
).order_by("position")


def _frozen(
    trial_id: int, number: int, state: TrialState, started: datetime | None, ended: datetime | None
) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=state,
        value=None,
        datetime_start=_local(started),
        datetime_complete=_local(ended),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _add(trial: FrozenTrial, kind: int, position: int, name: str, number: Any, text: str) -> None:
    name = name and intern(name)
    match kind:
        case _Detail.PARAM:
            domain = _distribution(text)
            trial.params[name] = domain.to_external_repr(number)
            trial.distributions[name] = domain
        case _Detail.VALUE:
            value = TrialValueModel.stored_repr_to_value(number, TrialValueModel.TrialValueType[text])
            trial.values = [*(trial.values or ()), value]
        case _Detail.USER_ATTR:
            trial.user_attrs[name] = json.loads(text)
        case _Detail.SYSTEM_ATTR:
            trial.system_attrs[name] = json.loads(text)
        case _Detail.REPORT:
            kind_of_value = TrialIntermediateValueModel.TrialIntermediateValueType[text]
            reported = TrialIntermediateValueModel.stored_repr_to_intermediate_value(number, kind_of_value)
            trial.intermediate_values[position] = reported


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    """One object per domain instead of one per trial and parameter: most of a large study's time and memory."""
    return json_to_distribution(text)


def _local(utc: datetime | None) -> datetime | None:
    """Optuna stores naive UTC and gives out naive local time."""
    return None if utc is None else utc.replace(tzinfo=timezone.utc).astimezone().replace(tzinfo=None)
