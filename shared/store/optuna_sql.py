"""The trials of one study in a database: each act is one transaction of as few statements as it takes.

Optuna's own calls are safe, but one transaction each: a trial with five parameters takes nine of them to create.
What is written here reads back through Optuna as if Optuna had written it; the contract tests hold it to that.

Two of Optuna's rules are kept. A trial is inserted only under the lock of its study's row: numbers are counted under
it, and caches read "newer than the last id". A trial that has ended is never changed again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, cast

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, Insert

from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.domain.states import TrialState as States
from highnoon.shared.domain.trial import Params, Report
from highnoon.shared.search.samplers import Distributions
from highnoon.shared.store import optuna_statements as sql
from highnoon.shared.store.optuna_tables import reports, system_attrs, user_attrs
from highnoon.shared.store.optuna_trials import (
    ATTEMPT,
    TICKET,
    Asked,
    Birth,
    OwnedTrial,
    Standing,
    Verdict,
    Waiting,
    owner_in,
)
from highnoon.shared.store.study_view import StudyEntry


class SqlTrials:
    """Implements Trials."""

    def __init__(self, engine: Engine, study_id: int) -> None:
        self._engine = engine
        # One SELECT is a transaction anyway; without BEGIN and COMMIT it is one round trip instead of three.
        self._looking = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._study = {"study": study_id}
        self._insert_new_reports = sql.insert_new(engine, reports)
        self._upsert_user_attrs = sql.upsert_attrs(engine, user_attrs)
        self._upsert_system_attrs = sql.upsert_attrs(engine, system_attrs)

    def create(self, birth: Birth) -> Asked:
        """As the protocol says."""
        with self._transaction() as connection:
            if connection.scalar(sql.LOCK_STUDY, self._study) is None:
                raise UnknownStudy("the study was deleted")
            last = connection.scalar(sql.LAST_NUMBER, self._study)
            number = 0 if last is None else last + 1
            new = {"study_id": self._study["study"], "number": number, "state": TrialState.RUNNING}
            inserted = connection.execute(sql.INSERT_TRIAL, {**new, "datetime_start": _utc_now()})
            (trial_id,) = cast("tuple[int]", inserted.inserted_primary_key)
            _insert(connection, sql.INSERT_PARAMS, _param_rows(trial_id, birth))
            _insert(connection, sql.INSERT_USER_ATTRS, _attr_rows(trial_id, birth.user_attrs))
            _insert(connection, sql.INSERT_SYSTEM_ATTRS, _attr_rows(trial_id, birth.system_attrs))
        return Asked(trial_id=trial_id, number=number, params=birth.params)

    def start_waiting(self, prepare: Callable[[Waiting], Birth]) -> Asked | None:
        """As the protocol says. Others pass the row over while `prepare` works."""
        if not self._any_waiting():
            return None
        with self._transaction() as connection:
            row = connection.execute(sql.TAKE_WAITING, self._study).first()
            if row is None:
                return None
            trial_id, number = row
            stored = _stored_params(connection, trial_id)
            fixed = {**_enqueued_params(connection, trial_id), **stored}
            birth = prepare(Waiting(trial_id=trial_id, number=number, fixed=fixed))
            connection.execute(sql.START_TRIAL, {"trial": trial_id, "now": _utc_now()})
            _insert(connection, sql.INSERT_PARAMS, _param_rows(trial_id, birth, stored))
            self._replace_attrs(connection, trial_id, birth)
        return Asked(trial_id=trial_id, number=number, params=birth.params)

    def add_reports(self, trial_id: int, reports: Sequence[Report]) -> None:
        """As the protocol says."""
        with self._transaction() as connection:
            if reports and connection.scalar(sql.IS_RUNNING, {"trial": trial_id}) is not None:
                connection.execute(self._insert_new_reports, [_report_row(trial_id, report) for report in reports])

    def finish(self, trial_id: int, verdict: Verdict) -> Standing | None:
        """As the protocol says."""
        end = {"trial": trial_id, "ended_as": verdict.state, "now": _utc_now()}
        with self._transaction() as connection:
            if connection.execute(sql.END_TRIAL, end).rowcount == 0:
                return _standing(connection, trial_id)
            value = verdict.value
            if value is None and verdict.state is TrialState.PRUNED:
                value = _last_reported(connection, trial_id)
            if value is not None:
                connection.execute(sql.INSERT_VALUE, _value_row(trial_id, value))
            self._replace_attrs(connection, trial_id, verdict)
        return None

    def owned_running(self) -> list[OwnedTrial]:
        """As the protocol says."""
        with self._looking.connect() as connection:
            rows = connection.execute(sql.OWNED_RUNNING, self._study).all()
        attrs = ({TICKET: json.loads(row.ticket), ATTEMPT: json.loads(row.attempt)} for row in rows)
        return [
            OwnedTrial(trial_id=row.trial_id, number=row.number, owner=owner)
            for row, owner in zip(rows, map(owner_in, attrs), strict=True)
            if owner is not None
        ]

    def latest_domains(self) -> Distributions:
        """As the protocol says."""
        with self._looking.connect() as connection:
            rows = connection.execute(sql.LATEST_DOMAINS, self._study)
            return {name: json_to_distribution(domain) for name, domain in rows}

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                # SQLite has no row locks: who is going to write takes the file before reading, or finds it changed.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _any_waiting(self) -> bool:
        with self._looking.connect() as connection:
            return connection.scalar(sql.ANY_WAITING, self._study) is not None

    def _replace_attrs(self, connection: Connection, trial_id: int, source: Birth | Verdict) -> None:
        _insert(connection, self._upsert_user_attrs, _attr_rows(trial_id, source.user_attrs))
        _insert(connection, self._upsert_system_attrs, _attr_rows(trial_id, source.system_attrs))


def sql_catalogue(engine: Engine) -> list[StudyEntry]:
    """Every study with one objective, oldest first, its trials counted in one statement."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        rows = connection.execute(sql.CATALOGUE).all()
    found: dict[str, tuple[str, dict[States, int]]] = {}
    for name, direction, state, count in rows:
        by_state = found.setdefault(name, (direction.name.lower(), {}))[1]
        if state is not None:
            by_state[States[state.name]] = count
    return [StudyEntry(name=name, direction=way, by_state=by_state) for name, (way, by_state) in found.items()]


def _stored_params(connection: Connection, trial_id: int) -> Params:
    rows = connection.execute(sql.STORED_PARAMS, {"trial": trial_id})
    return {name: json_to_distribution(domain).to_external_repr(value) for name, value, domain in rows}


def _enqueued_params(connection: Connection, trial_id: int) -> dict[str, Any]:
    written = connection.scalar(sql.FIXED_PARAMS, {"trial": trial_id})
    return {} if written is None else dict(json.loads(written))


def _standing(connection: Connection, trial_id: int) -> Standing:
    row = connection.execute(sql.STANDING, {"trial": trial_id}).first()
    if row is None:
        raise UnknownStudy(f"the study of trial id {trial_id} was deleted")
    state, value, kind = row
    return Standing(state=state, value=None if kind is None else TrialValueModel.stored_repr_to_value(value, kind))


def _last_reported(connection: Connection, trial_id: int) -> float | None:
    """NaN is no value that a trial may end with."""
    row = connection.execute(sql.LAST_REPORT, {"trial": trial_id}).first()
    if row is None:
        return None
    value = TrialIntermediateValueModel.stored_repr_to_intermediate_value(*row)
    return None if math.isnan(value) else value


def _insert(connection: Connection, statement: Insert, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _param_rows(trial_id: int, birth: Birth, stored: Collection[str] = ()) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": birth.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(birth.distributions[name]),
        }
        for name, value in birth.params.items()
        if name not in stored
    ]


def _attr_rows(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]


def _value_row(trial_id: int, value: float) -> dict[str, Any]:
    stored, kind = TrialValueModel.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind}


def _report_row(trial_id: int, report: Report) -> dict[str, Any]:
    stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(report.value)
    return {
        "trial_id": trial_id,
        "step": report.step,
        "intermediate_value": stored,
        "intermediate_value_type": kind,
    }


def _utc_now() -> datetime:
    """Optuna stores naive UTC."""
    return datetime.now(timezone.utc).replace(tzinfo=None)
