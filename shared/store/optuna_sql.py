"""The trials of one study in any database: each act is one transaction of as few statements as it takes.

For studies that run in one process; workers use the functions of `functions.sql`. Optuna's own calls are safe, but one
transaction each: a trial with five parameters takes nine of them to create. What is written here reads back through
Optuna as if Optuna had written it; the contract tests hold it to that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, cast

from optuna.distributions import json_to_distribution
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, Insert, delete, insert, select

from highnoon.shared.domain.artifact import Artifact, artifacts_in
from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.domain.lease import EnqueuedTrial
from highnoon.shared.domain.states import TrialState as States
from highnoon.shared.domain.trial import Report
from highnoon.shared.search.samplers import Distributions
from highnoon.shared.store import optuna_statements as statements
from highnoon.shared.store.database import autocommit
from highnoon.shared.store.optuna_tables import params, reports, study_attrs, system_attrs, trials, user_attrs, values
from highnoon.shared.store.optuna_trials import (
    EarlierEnding,
    NewTrial,
    StartedTrial,
    extension_of,
    fixed_params,
    param_rows,
)
from highnoon.shared.store.trial_results import TrialResult


class SqlTrials:
    """Implements Trials."""

    def __init__(self, engine: Engine, study_id: int) -> None:
        self._engine = engine
        self._study = {"study": study_id}
        self._insert_new_study_attr = statements.insert_new(engine, study_attrs)
        self._insert_new_reports = statements.insert_new(engine, reports)
        self._insert_new_params = statements.insert_new(engine, params)
        self._upsert_user_attrs = statements.upsert_attrs(engine, user_attrs)
        self._upsert_system_attrs = statements.upsert_attrs(engine, system_attrs)

    def waiting(self) -> EnqueuedTrial | None:
        """As Trials describes it."""
        with autocommit(self._engine) as connection:
            row = connection.execute(statements.FIRST_WAITING, self._study).first()
            if row is None:
                return None
            enqueued = connection.scalar(statements.FIXED_PARAMS, {"trial": row.trial_id})
            stored = connection.execute(statements.STORED_PARAMS, {"trial": row.trial_id}).all()
            extension = extension_of(connection.scalar(statements.ENQUEUED_EXTENSION, {"trial": row.trial_id}))
        fixed = fixed_params(enqueued, stored)
        return EnqueuedTrial(trial_id=row.trial_id, number=row.number, fixed=fixed, extension=extension)

    def start(self, new: NewTrial) -> StartedTrial | None:
        """As Trials describes it."""
        with self._transaction() as connection:
            if new.begun is not None:
                self._lock_study(connection)
                if connection.scalar(statements.BEGUN, self._study) != new.begun:
                    return None
            if new.waiting_trial_id is None:
                trial_id, number = self._insert_trial(connection)
            else:
                trial_id = new.waiting_trial_id
                if connection.execute(statements.START_WAITING, {"trial": trial_id, "now": _utc_now()}).rowcount == 0:
                    return None
                number = int(connection.scalar(statements.NUMBER, {"trial": trial_id}) or 0)
            rows = [{"trial_id": trial_id, **row} for row in param_rows(new)]
            _insert(connection, self._insert_new_params, rows)
            self._write_attrs(connection, trial_id, new)
        return StartedTrial(trial_id=trial_id, number=number, params=new.params)

    def add(self, trial_id: int, new: NewTrial) -> None:
        """As Trials describes it."""
        with self._transaction() as connection:
            if connection.scalar(statements.IS_RUNNING, {"trial": trial_id}) is not None:
                _insert(connection, self._insert_new_params, [{"trial_id": trial_id, **row} for row in param_rows(new)])
                self._write_attrs(connection, trial_id, new)

    def add_reports(self, trial_id: int, reports: Sequence[Report]) -> None:
        """As Trials describes it."""
        with self._transaction() as connection:
            if reports and connection.scalar(statements.IS_RUNNING, {"trial": trial_id}) is not None:
                connection.execute(self._insert_new_reports, [_report_row(trial_id, report) for report in reports])

    def finish(self, trial_id: int, result: TrialResult) -> EarlierEnding | None:
        """As Trials describes it."""
        end = {"trial": trial_id, "ended_as": TrialState[result.state], "now": _utc_now()}
        with self._transaction() as connection:
            if connection.execute(statements.END_TRIAL, end).rowcount == 0:
                return _earlier_ending(connection, trial_id)
            value = result.value
            if value is None and result.state is States.PRUNED and not result.has_goals:
                value = _last_reported(connection, trial_id)
            own = result.values if value is None else (value,)
            _insert(connection, insert(values), [_value_row(trial_id, place, one) for place, one in enumerate(own)])
            self._write_attrs(connection, trial_id, result)
        return None

    def own_domains(self) -> Distributions:
        """As Trials describes it."""
        with autocommit(self._engine) as connection:
            rows = connection.execute(statements.OWN_DOMAINS, self._study)
            return {name: json_to_distribution(domain) for name, domain in rows}

    def artifacts(self, number: int | None = None) -> dict[int, list[Artifact]]:
        """As Trials describes it."""
        with autocommit(self._engine) as connection:
            one = statements.ARTIFACTS if number is None else statements.ARTIFACTS.where(trials.c.number == number)
            rows = connection.execute(one, self._study).all()
        attrs: dict[int, dict[str, Any]] = {}
        for number, key, value in rows:
            attrs.setdefault(number, {})[key] = json.loads(value)
        return {number: artifacts_in(found) for number, found in attrs.items()}

    def remove_artifacts(self, artifacts: Collection[Artifact]) -> None:
        """As Trials describes it."""
        keys = [artifact.attr[0] for artifact in artifacts]
        own = select(trials.c.trial_id).where(trials.c.study_id == self._study["study"])
        with self._transaction() as connection:
            connection.execute(
                delete(system_attrs).where(system_attrs.c.key.in_(keys), system_attrs.c.trial_id.in_(own))
            )

    def metric_history(self, number: int) -> object:
        """As Trials describes it."""
        with autocommit(self._engine) as connection:
            found = connection.scalar(statements.METRIC_HISTORY_OF, {**self._study, "number": number})
        return None if found is None else json.loads(found)

    def keep_study_attr(self, key: str, value: Any) -> Any:
        """As Trials describes it."""
        row = {"study_id": self._study["study"], "key": key, "value_json": json.dumps(value)}
        with self._transaction() as connection:
            connection.execute(self._insert_new_study_attr, [row])
            kept = connection.scalar(statements.STUDY_ATTR, {**self._study, "attr": key})
        return value if kept is None else json.loads(kept)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                # SQLite has no row locks: who is going to write takes the file before reading, or finds it changed.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _lock_study(self, connection: Connection) -> None:
        if connection.scalar(statements.LOCK_STUDY, self._study) is None:
            raise UnknownStudy("the study was deleted")

    def _insert_trial(self, connection: Connection) -> tuple[int, int]:
        self._lock_study(connection)
        last = connection.scalar(statements.LAST_NUMBER, self._study)
        number = 0 if last is None else last + 1
        new = {"study_id": self._study["study"], "number": number, "state": TrialState.RUNNING}
        inserted = connection.execute(insert(trials), {**new, "datetime_start": _utc_now()})
        (trial_id,) = cast("tuple[int]", inserted.inserted_primary_key)
        return trial_id, number

    def _write_attrs(self, connection: Connection, trial_id: int, source: NewTrial | TrialResult) -> None:
        _insert(connection, self._upsert_user_attrs, _attr_rows(trial_id, source.user_attrs))
        _insert(connection, self._upsert_system_attrs, _attr_rows(trial_id, source.system_attrs))


def _earlier_ending(connection: Connection, trial_id: int) -> EarlierEnding:
    rows = connection.execute(statements.EARLIER_ENDING, {"trial": trial_id}).all()
    if not rows:
        raise UnknownStudy(f"the study of trial id {trial_id} was deleted")
    stored = [TrialValueModel.stored_repr_to_value(value, kind) for _, value, kind in rows if kind is not None]
    return EarlierEnding(state=States[rows[0].state.name], values=tuple(stored))


def _last_reported(connection: Connection, trial_id: int) -> float | None:
    """NaN is no value that a trial may end with."""
    row = connection.execute(statements.LAST_REPORT, {"trial": trial_id}).first()
    if row is None:
        return None
    value = TrialIntermediateValueModel.stored_repr_to_intermediate_value(*row)
    return None if math.isnan(value) else value


def _insert(connection: Connection, statement: Insert, rows: Collection[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, list(rows))


def _attr_rows(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]


def _value_row(trial_id: int, objective: int, value: float) -> dict[str, Any]:
    stored, kind = TrialValueModel.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}


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
