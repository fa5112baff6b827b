"""Our statements on Optuna's tables, portable over PostgreSQL, SQLite and MySQL; `SqlTrials` runs them.

For studies that run in one process; workers use the functions of `functions.sql`. Two of Optuna's rules are kept. A
trial is inserted only under the lock of its study's row: numbers are counted under it, and caches read "newer than the
last id". A trial that has ended is never changed again.
"""

from __future__ import annotations

from optuna.trial import TrialState
from sqlalchemy import BindParameter, Engine, Insert, Table, bindparam, func, insert, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite

from highnoon.shared.domain.artifact import ARTIFACT
from highnoon.shared.domain.extension import EXTENSION
from highnoon.shared.domain.metric_history import METRIC_HISTORY
from highnoon.shared.domain.states import ENDING, TICKET
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

_STUDY: BindParameter[int] = bindparam("study")
_TRIAL: BindParameter[int] = bindparam("trial")

LOCK_STUDY = select(studies.c.study_id).where(studies.c.study_id == _STUDY).with_for_update()
"""Serialises the creation of trials, as Optuna does. First in its transaction; no row when the study is deleted."""

LAST_NUMBER = select(trials.c.number).where(trials.c.study_id == _STUDY).order_by(trials.c.trial_id.desc()).limit(1)
"""Under LOCK_STUDY: the number before the next one."""

BEGUN = select(func.count()).where(trials.c.study_id == _STUDY, trials.c.state != TrialState.WAITING)
"""Under LOCK_STUDY: how many trials have begun."""

FIRST_START = select(trials.c.datetime_start).where(trials.c.study_id == _STUDY).order_by(trials.c.trial_id).limit(1)

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
"""What an enqueued trial goes on from, as JSON."""

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

METRIC_HISTORY_OF = (
    select(system_attrs.c.value_json)
    .join(trials, trials.c.trial_id == system_attrs.c.trial_id)
    .where(trials.c.study_id == _STUDY, trials.c.number == bindparam("number"), system_attrs.c.key == METRIC_HISTORY)
)

CATALOGUE = (
    select(
        studies.c.study_name,
        directions.c.objective,
        directions.c.direction,
        trials.c.state,
        func.count(),
        func.max(trials.c.datetime_complete),
    )
    .join(directions, directions.c.study_id == studies.c.study_id)
    .outerjoin(trials, trials.c.study_id == studies.c.study_id)
    .group_by(studies.c.study_id, studies.c.study_name, directions.c.objective, directions.c.direction, trials.c.state)
    .order_by(studies.c.study_id)
)
"""Studies, how many trials each has in each state, and when the last of these ended, for each of its objectives.

Without a state when it has no trial.
"""


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
