"""The trials of one study in any database: each act is one transaction of as few statements as it takes.

For studies that run in one process; workers use the functions of `functions.sql`. Optuna's own calls are safe, but one
transaction each: a trial with five parameters takes nine of them to create. What is written here reads back through
Optuna as if Optuna had written it; the contract tests hold it to that. Portable over PostgreSQL, SQLite and MySQL.

Two of Optuna's rules are kept. A trial is inserted only under the lock of its study's row: numbers are counted under
it, and caches read "newer than the last id". A trial that has ended is never changed again.
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
from sqlalchemy import (
    BindParameter,
    Connection,
    Engine,
    Insert,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

from highnoon.shared.domain.artifact import ARTIFACT, Artifact, artifacts_in
from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.domain.extension import EXTENSION
from highnoon.shared.domain.lease import Waiting
from highnoon.shared.domain.states import ENDING, TICKET
from highnoon.shared.domain.states import TrialState as States
from highnoon.shared.domain.trial import Report
from highnoon.shared.search.samplers import Distributions
from highnoon.shared.store.database import autocommit
from highnoon.shared.store.optuna_tables import (
    directions,
    params,
    reports,
    studies,
    study_attrs,
    system_attrs,
    trials,
    user_attrs,
    values,
)
from highnoon.shared.store.optuna_trials import (
    EarlierEnding,
    NewTrial,
    StartedTrial,
    extension_of,
    fixed_params,
    param_rows,
)
from highnoon.shared.store.study_view import StudyEntry
from highnoon.shared.store.trial_results import TrialResult

_STUDY: BindParameter[int] = bindparam("study")
_TRIAL: BindParameter[int] = bindparam("trial")

LOCK_STUDY = select(studies.c.study_id).where(studies.c.study_id == _STUDY).with_for_update()
"""Serialises the creation of trials, as Optuna does. First in its transaction; no row when the study is deleted."""

LAST_NUMBER = select(trials.c.number).where(trials.c.study_id == _STUDY).order_by(trials.c.trial_id.desc()).limit(1)
"""Under LOCK_STUDY: the number before the next one."""

FIRST_WAITING = (
    select(trials.c.trial_id, trials.c.number)
    .where(trials.c.study_id == _STUDY, trials.c.state == TrialState.WAITING)
    .order_by(trials.c.trial_id)
    .limit(1)
)
"""The oldest enqueued trial. Nearly always nothing: looked for without a lock, before every sampled trial."""

STORED_PARAMS = select(params.c.param_name, params.c.param_value, params.c.distribution_json).where(
    params.c.trial_id == _TRIAL
)
"""What an enqueued trial has as parameters: one that Optuna's retry callback cloned has all of them."""

FIXED_PARAMS = select(system_attrs.c.value_json).where(
    system_attrs.c.trial_id == _TRIAL, system_attrs.c.key == "fixed_params"
)
"""What `enqueue_trial` fixed, as JSON."""

ENQUEUED_EXTENSION = select(system_attrs.c.value_json).where(
    system_attrs.c.trial_id == _TRIAL, system_attrs.c.key == EXTENSION
)

START_WAITING = (
    update(trials)
    .where(trials.c.trial_id == _TRIAL, trials.c.state == TrialState.WAITING)
    .values(state=TrialState.RUNNING, datetime_start=bindparam("now"))
)
"""Touches no row when another worker has started the trial."""

NUMBER = select(trials.c.number).where(trials.c.trial_id == _TRIAL)

END_TRIAL = (
    update(trials)
    .where(trials.c.trial_id == _TRIAL, trials.c.state.in_([TrialState.RUNNING, TrialState.WAITING]))
    .values(state=bindparam("ended_as"), datetime_complete=bindparam("now"))
)
"""Ends a trial once: touches no row when it has ended before. Locks the row for the rest of the transaction."""

EARLIER_ENDING = (
    select(trials.c.state, values.c.value, values.c.value_type)
    .outerjoin(values, values.c.trial_id == trials.c.trial_id)
    .where(trials.c.trial_id == _TRIAL)
    .order_by(values.c.objective)
)
"""A trial's state and values, a row for each."""

LAST_REPORT = (
    select(reports.c.intermediate_value, reports.c.intermediate_value_type)
    .where(reports.c.trial_id == _TRIAL)
    .order_by(reports.c.step.desc())
    .limit(1)
)

IS_RUNNING = select(trials.c.trial_id).where(trials.c.trial_id == _TRIAL, trials.c.state == TrialState.RUNNING)

_NEWEST_OWN = (
    select(func.max(user_attrs.c.trial_id))
    .join(trials, trials.c.trial_id == user_attrs.c.trial_id)
    .where(trials.c.study_id == _STUDY, user_attrs.c.key.in_([TICKET, ENDING]))
    .scalar_subquery()
)

OWN_DOMAINS = select(params.c.param_name, params.c.distribution_json).where(params.c.trial_id == _NEWEST_OWN)
"""The parameters of the newest trial that we started for a ticket, or ended."""

STUDY_ATTR = select(study_attrs.c.value_json).where(
    study_attrs.c.study_id == _STUDY, study_attrs.c.key == bindparam("attr")
)

ARTIFACTS = (
    select(trials.c.number, system_attrs.c.key, system_attrs.c.value_json)
    .join(system_attrs, system_attrs.c.trial_id == trials.c.trial_id)
    .where(trials.c.study_id == _STUDY, system_attrs.c.key.startswith(ARTIFACT))
    .order_by(trials.c.number)
)

CATALOGUE = (
    select(studies.c.study_name, directions.c.objective, directions.c.direction, trials.c.state, func.count())
    .join(directions, directions.c.study_id == studies.c.study_id)
    .outerjoin(trials, trials.c.study_id == studies.c.study_id)
    .group_by(studies.c.study_id, studies.c.study_name, directions.c.objective, directions.c.direction, trials.c.state)
    .order_by(studies.c.study_id)
)
"""Studies and how many trials each has in each state, for each of its objectives; without a state when it has none."""


class SqlTrials:
    """Implements Trials."""

    def __init__(self, engine: Engine, study_id: int) -> None:
        self._engine = engine
        self._study = {"study": study_id}
        self._insert_new_study_attr = insert_new(engine, study_attrs)
        self._insert_new_reports = insert_new(engine, reports)
        self._insert_new_params = insert_new(engine, params)
        self._upsert_user_attrs = upsert_attrs(engine, user_attrs)
        self._upsert_system_attrs = upsert_attrs(engine, system_attrs)

    def waiting(self) -> Waiting | None:
        """As Trials describes it."""
        with autocommit(self._engine) as connection:
            row = connection.execute(FIRST_WAITING, self._study).first()
            if row is None:
                return None
            enqueued = connection.scalar(FIXED_PARAMS, {"trial": row.trial_id})
            stored = connection.execute(STORED_PARAMS, {"trial": row.trial_id}).all()
            extension = extension_of(connection.scalar(ENQUEUED_EXTENSION, {"trial": row.trial_id}))
        fixed = fixed_params(enqueued, stored)
        return Waiting(trial_id=row.trial_id, number=row.number, fixed=fixed, extension=extension)

    def start(self, new: NewTrial) -> StartedTrial | None:
        """As Trials describes it."""
        with self._transaction() as connection:
            if new.waiting_trial_id is None:
                trial_id, number = self._insert_trial(connection)
            else:
                trial_id = new.waiting_trial_id
                if connection.execute(START_WAITING, {"trial": trial_id, "now": _utc_now()}).rowcount == 0:
                    return None
                number = int(connection.scalar(NUMBER, {"trial": trial_id}) or 0)
            rows = [{"trial_id": trial_id, **row} for row in param_rows(new)]
            _insert(connection, self._insert_new_params, rows)
            self._write_attrs(connection, trial_id, new)
        return StartedTrial(trial_id=trial_id, number=number, params=new.params)

    def add(self, trial_id: int, new: NewTrial) -> None:
        """As Trials describes it."""
        with self._transaction() as connection:
            if connection.scalar(IS_RUNNING, {"trial": trial_id}) is not None:
                _insert(connection, self._insert_new_params, [{"trial_id": trial_id, **row} for row in param_rows(new)])
                self._write_attrs(connection, trial_id, new)

    def add_reports(self, trial_id: int, reports: Sequence[Report]) -> None:
        """As Trials describes it."""
        with self._transaction() as connection:
            if reports and connection.scalar(IS_RUNNING, {"trial": trial_id}) is not None:
                connection.execute(self._insert_new_reports, [_report_row(trial_id, report) for report in reports])

    def finish(self, trial_id: int, result: TrialResult) -> EarlierEnding | None:
        """As Trials describes it."""
        end = {"trial": trial_id, "ended_as": TrialState[result.state], "now": _utc_now()}
        with self._transaction() as connection:
            if connection.execute(END_TRIAL, end).rowcount == 0:
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
            rows = connection.execute(OWN_DOMAINS, self._study)
            return {name: json_to_distribution(domain) for name, domain in rows}

    def artifacts(self, number: int | None = None) -> dict[int, list[Artifact]]:
        """As Trials describes it."""
        with autocommit(self._engine) as connection:
            one = ARTIFACTS if number is None else ARTIFACTS.where(trials.c.number == number)
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

    def keep_study_attr(self, key: str, value: Any) -> Any:
        """As Trials describes it."""
        row = {"study_id": self._study["study"], "key": key, "value_json": json.dumps(value)}
        with self._transaction() as connection:
            connection.execute(self._insert_new_study_attr, [row])
            kept = connection.scalar(STUDY_ATTR, {**self._study, "attr": key})
        return value if kept is None else json.loads(kept)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                # SQLite has no row locks: who is going to write takes the file before reading, or finds it changed.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _insert_trial(self, connection: Connection) -> tuple[int, int]:
        if connection.scalar(LOCK_STUDY, self._study) is None:
            raise UnknownStudy("the study was deleted")
        last = connection.scalar(LAST_NUMBER, self._study)
        number = 0 if last is None else last + 1
        new = {"study_id": self._study["study"], "number": number, "state": TrialState.RUNNING}
        inserted = connection.execute(insert(trials), {**new, "datetime_start": _utc_now()})
        (trial_id,) = cast("tuple[int]", inserted.inserted_primary_key)
        return trial_id, number

    def _write_attrs(self, connection: Connection, trial_id: int, source: NewTrial | TrialResult) -> None:
        _insert(connection, self._upsert_user_attrs, _attr_rows(trial_id, source.user_attrs))
        _insert(connection, self._upsert_system_attrs, _attr_rows(trial_id, source.system_attrs))


def sql_catalogue(engine: Engine) -> list[StudyEntry]:
    """Every study, oldest first, its trials counted in one statement."""
    with autocommit(engine) as connection:
        rows = connection.execute(CATALOGUE).all()
    found: dict[str, tuple[dict[int, str], dict[States, int]]] = {}
    for name, objective, direction, state, count in rows:
        ways, by_state = found.setdefault(name, ({}, {}))
        ways[objective] = direction.name.lower()
        if state is not None:
            by_state[States[state.name]] = count
    return [
        StudyEntry(name=name, directions=tuple(ways[place] for place in sorted(ways)), by_state=by_state)
        for name, (ways, by_state) in found.items()
    ]


def insert_new(engine: Engine, table: Table) -> Insert:
    """Inserts rows, leaving alone those whose unique key is there already."""
    match engine.dialect.name:
        case "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        case "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        case _:
            return insert(table).prefix_with("IGNORE")


def upsert_attrs(engine: Engine, table: Table) -> Insert:
    """Inserts attributes, replacing those that are there: a clone made by Optuna carries its original's."""
    key = ["trial_id", "key"]
    match engine.dialect.name:
        case "postgresql":
            row = postgresql.insert(table)
            return row.on_conflict_do_update(index_elements=key, set_={"value_json": row.excluded.value_json})
        case "sqlite":
            lite = sqlite.insert(table)
            return lite.on_conflict_do_update(index_elements=key, set_={"value_json": lite.excluded.value_json})
        case _:
            my = mysql.insert(table)
            return my.on_duplicate_key_update(value_json=my.inserted.value_json)


def _earlier_ending(connection: Connection, trial_id: int) -> EarlierEnding:
    rows = connection.execute(EARLIER_ENDING, {"trial": trial_id}).all()
    if not rows:
        raise UnknownStudy(f"the study of trial id {trial_id} was deleted")
    stored = [TrialValueModel.stored_repr_to_value(value, kind) for _, value, kind in rows if kind is not None]
    return EarlierEnding(state=States[rows[0].state.name], values=tuple(stored))


def _last_reported(connection: Connection, trial_id: int) -> float | None:
    """NaN is no value that a trial may end with."""
    row = connection.execute(LAST_REPORT, {"trial": trial_id}).first()
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
