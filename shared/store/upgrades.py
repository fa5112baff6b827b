"""What each version of the ledger changed in tables that were there before. New tables are made where all are made.

The coordinator runs it in one transaction, under the schema's lock. Workers of version 4 or newer go on beside it and
after it. Workers of a version before 4 find no attempt of theirs running afterwards: they stop their trials and write
nothing, so drain them before an upgrade where they must not lose work.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Connection, inspect, text

from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store.schema import SCHEMA_VERSION, metadata, tickets
from highnoon.shared.store.trial_results import failure, result_json, trial_result

_COLUMNS = {
    2: (
        "ALTER TABLE hn_attempts ADD COLUMN memory JSON, ADD COLUMN code VARCHAR(64)",
        "ALTER TABLE hn_workers ADD COLUMN facts JSON, ADD COLUMN state_reason TEXT",
    ),
    3: ("ALTER TABLE hn_workers ADD COLUMN reinstated_at DOUBLE PRECISION",),
    4: (
        "ALTER TABLE hn_studies ADD COLUMN spec_version INTEGER NOT NULL DEFAULT 1,"
        " ADD COLUMN optuna_study_id INTEGER, ADD COLUMN fault TEXT",
        "ALTER TABLE hn_attempts ADD COLUMN finish_token VARCHAR(64), ADD COLUMN foreign_ending TEXT",
        "ALTER TABLE hn_tickets RENAME COLUMN losses TO infrastructure_failures",
        "ALTER TABLE hn_tickets ALTER COLUMN step TYPE BIGINT, DROP CONSTRAINT state_is_known,"
        " DROP CONSTRAINT leased_means_a_lease, DROP CONSTRAINT settled_means_an_outcome",
        "UPDATE hn_tickets SET state = 'running' WHERE state = 'leased'",
    ),
    5: (),  # a new table
    6: (
        "ALTER TABLE hn_attempts ADD COLUMN environment VARCHAR(64)",
        "ALTER TABLE hn_tickets ADD COLUMN checkpoint JSON",
    ),
    7: ("ALTER TABLE hn_attempts ADD COLUMN metric_history JSON",),
}

_LOCK = "LOCK TABLE hn_tickets, hn_attempts IN ACCESS EXCLUSIVE MODE"
"""In the order in which transactions of workers use them, before an ALTER takes them in another one. Not `hn_studies`:
the triggers on tickets read it between the two."""

_KNOW_OPTUNAS_STUDY = """
    UPDATE hn_studies SET optuna_study_id = o.study_id FROM studies o WHERE o.study_name = hn_studies.name
"""

_KNOW_WHAT_IS_DELETED = """
    UPDATE hn_studies SET optuna_study_id = 0
    WHERE optuna_study_id IS NULL AND state IN ('running', 'paused', 'cancelling')
"""
"""Optuna's ids begin at 1: the coordinator finds no study of this one and ends it as deleted."""

_BIND = """
    UPDATE hn_tickets SET trial_id = o.trial_id
    FROM hn_attempts a, trials o
        JOIN trial_user_attributes t ON t.trial_id = o.trial_id AND t.key = 'highnoon:ticket'
        JOIN trial_user_attributes n ON n.trial_id = o.trial_id AND n.key = 'highnoon:attempt'
    WHERE hn_tickets.state = 'running' AND a.ticket_id = hn_tickets.id AND a.attempt = hn_tickets.attempt
        AND a.trial_number IS NULL AND o.state = 'RUNNING'
        AND t.value_json = hn_tickets.id::text AND n.value_json = hn_tickets.attempt::text
"""
"""An attempt that was cut off between creating its trial and binding it."""

_FAIL_ORPHANS = """
    SELECT hn_end_trial_1(o.trial_id, CAST(:result AS json)) FROM trials o
    WHERE o.state = 'RUNNING'
        AND EXISTS (SELECT FROM trial_user_attributes t WHERE t.trial_id = o.trial_id AND t.key = 'highnoon:ticket')
        AND NOT EXISTS (SELECT FROM hn_tickets t WHERE t.trial_id = o.trial_id AND t.state = 'running')
"""
"""Trials of ours that no running attempt has; there can be none from this version on."""

_CLOSE = """
    UPDATE hn_tickets SET state = 'closed', closed_at = settled_at WHERE state = 'settled'
"""


def upgrade_tables(connection: Connection, found: int) -> None:
    """Brings tables of version `found` to today's columns, constraints and indexes."""
    if found < SCHEMA_VERSION:
        connection.execute(text(_LOCK))
    for version in range(found + 1, SCHEMA_VERSION + 1):
        for statement in _COLUMNS[version]:
            connection.execute(text(statement))


def upgrade_rows(connection: Connection, found: int) -> None:
    """Brings what the tables hold to today's states. Needs today's functions."""
    if found < 4:
        if inspect(connection).has_table("trials"):
            connection.execute(text(_KNOW_OPTUNAS_STUDY))
            connection.execute(text(_KNOW_WHAT_IS_DELETED))
            connection.execute(text(_BIND))
            _end_settled_trials(connection)
            connection.execute(text(_FAIL_ORPHANS), {"result": result_json(failure("its attempt is over"))})
        connection.execute(text(_CLOSE))
        connection.execute(text("ALTER TABLE hn_tickets DROP COLUMN settled_at"))
        for constraint in tickets.constraints:
            if isinstance(constraint, CheckConstraint):
                rule = f"ADD CONSTRAINT {constraint.name} CHECK ({constraint.sqltext})"
                connection.execute(text(f"ALTER TABLE hn_tickets {rule}"))
    for table in metadata.sorted_tables:
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def _end_settled_trials(connection: Connection) -> None:
    """Tickets whose outcome was stored and whose Optuna trial may not have it yet."""
    settled = connection.execute(text("SELECT id, attempt, trial_id, outcome FROM hn_tickets WHERE state = 'settled'"))
    for ticket_id, attempt, trial_id, outcome in settled.all():
        try:
            result = trial_result(Outcome.from_json(outcome))
        except (KeyError, ValueError, TypeError):
            result = failure("its stored outcome cannot be read")
        connection.execute(
            text(
                "UPDATE hn_attempts SET foreign_ending = hn_end_own_trial_1(:trial, CAST(:result AS json), '[]')"
                " WHERE ticket_id = :ticket AND attempt = :attempt"
            ),
            {"trial": trial_id, "result": result_json(result), "ticket": ticket_id, "attempt": attempt},
        )
