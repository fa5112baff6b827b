"""Every statement that we run on Optuna's tables to change them, or to look without loading a study.

Portable over PostgreSQL, SQLite and MySQL; `sql` puts them into transactions.
"""

from __future__ import annotations

from optuna.trial import TrialState
from sqlalchemy import BindParameter, Engine, Insert, Table, and_, bindparam, func, insert, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite

from highnoon.shared.store.optuna_tables import (
    directions,
    params,
    reports,
    studies,
    system_attrs,
    trials,
    user_attrs,
    values,
)
from highnoon.shared.store.optuna_trials import ATTEMPT, TICKET

_STUDY: BindParameter[int] = bindparam("study")
_TRIAL: BindParameter[int] = bindparam("trial")

LOCK_STUDY = select(studies.c.study_id).where(studies.c.study_id == _STUDY).with_for_update()
"""Serialises the creation of trials, as Optuna does. First in its transaction; no row when the study is deleted."""

LAST_NUMBER = select(trials.c.number).where(trials.c.study_id == _STUDY).order_by(trials.c.trial_id.desc()).limit(1)
"""Under LOCK_STUDY: the number before the next one."""

INSERT_TRIAL = insert(trials)
INSERT_PARAMS = insert(params)
INSERT_VALUE = insert(values)
INSERT_USER_ATTRS = insert(user_attrs)
INSERT_SYSTEM_ATTRS = insert(system_attrs)

_WAITING = and_(trials.c.study_id == _STUDY, trials.c.state == TrialState.WAITING)

ANY_WAITING = select(trials.c.trial_id).where(_WAITING).limit(1)
"""Nearly always nothing: looked for without a lock, before every sampled trial."""

TAKE_WAITING = (
    select(trials.c.trial_id, trials.c.number)
    .where(_WAITING)
    .order_by(trials.c.trial_id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
"""The oldest WAITING trial that nobody else is taking."""

STORED_PARAMS = select(params.c.param_name, params.c.param_value, params.c.distribution_json).where(
    params.c.trial_id == _TRIAL
)
"""What a WAITING trial has as parameters: one that Optuna's retry callback cloned has all of them."""

FIXED_PARAMS = select(system_attrs.c.value_json).where(
    system_attrs.c.trial_id == _TRIAL, system_attrs.c.key == "fixed_params"
)
"""What `enqueue_trial` fixed, as JSON."""

START_TRIAL = (
    update(trials).where(trials.c.trial_id == _TRIAL).values(state=TrialState.RUNNING, datetime_start=bindparam("now"))
)

END_TRIAL = (
    update(trials)
    .where(trials.c.trial_id == _TRIAL, trials.c.state.in_([TrialState.RUNNING, TrialState.WAITING]))
    .values(state=bindparam("ended_as"), datetime_complete=bindparam("now"))
)
"""Ends a trial once: touches no row when it has ended before. Locks the row for the rest of the transaction."""

STANDING = (
    select(trials.c.state, values.c.value, values.c.value_type)
    .outerjoin(values, and_(values.c.trial_id == trials.c.trial_id, values.c.objective == 0))
    .where(trials.c.trial_id == _TRIAL)
)
"""A trial's state and value."""

LAST_REPORT = (
    select(reports.c.intermediate_value, reports.c.intermediate_value_type)
    .where(reports.c.trial_id == _TRIAL)
    .order_by(reports.c.step.desc())
    .limit(1)
)

IS_RUNNING = select(trials.c.trial_id).where(trials.c.trial_id == _TRIAL, trials.c.state == TrialState.RUNNING)

_ticket, _attempt = user_attrs.alias("ticket"), user_attrs.alias("attempt")

OWNED_RUNNING = (
    select(
        trials.c.trial_id,
        trials.c.number,
        _ticket.c.value_json.label("ticket"),
        _attempt.c.value_json.label("attempt"),
    )
    .join(_ticket, and_(_ticket.c.trial_id == trials.c.trial_id, _ticket.c.key == TICKET))
    .join(_attempt, and_(_attempt.c.trial_id == trials.c.trial_id, _attempt.c.key == ATTEMPT))
    .where(trials.c.study_id == _STUDY, trials.c.state == TrialState.RUNNING)
    .order_by(trials.c.trial_id)
)
"""RUNNING trials with both attributes of an Owner."""


LATEST_DOMAINS = select(params.c.param_name, params.c.distribution_json).where(
    params.c.trial_id
    == select(trials.c.trial_id)
    .where(trials.c.study_id == _STUDY, trials.c.state != TrialState.WAITING)
    .order_by(trials.c.trial_id.desc())
    .limit(1)
    .scalar_subquery()
)

_HAS_ONE_OBJECTIVE = (
    select(directions.c.study_id).group_by(directions.c.study_id).having(func.count() == 1).scalar_subquery()
)

CATALOGUE = (
    select(studies.c.study_name, directions.c.direction, trials.c.state, func.count())
    .join(directions, directions.c.study_id == studies.c.study_id)
    .outerjoin(trials, trials.c.study_id == studies.c.study_id)
    .where(studies.c.study_id.in_(_HAS_ONE_OBJECTIVE))
    .group_by(studies.c.study_id, studies.c.study_name, directions.c.direction, trials.c.state)
    .order_by(studies.c.study_id)
)
"""Studies with one objective and how many trials each has in each state; one row without a state when it has none."""


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
