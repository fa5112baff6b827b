"""What each version of the ledger added to tables that were there before: columns, and indexes. New tables are made
where all are made.

Only nullable columns are ever added: a node of the version before goes on working beside it until it is restarted.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Index, text
from sqlalchemy.schema import CreateColumn

from highnoon.shared.store.schema import SCHEMA_VERSION, attempts, attempts_of_worker, workers

ADDED_BY: dict[int, tuple[Column[object], ...]] = {
    2: (attempts.c.memory, attempts.c.code, workers.c.facts, workers.c.state_reason),
    3: (workers.c.reinstated_at,),
}
INDEXES_ADDED_BY: dict[int, tuple[Index, ...]] = {
    3: (attempts_of_worker,),
}


def upgrade(connection: Connection, found: int) -> None:
    """Brings tables of version `found` to today's, within the transaction of the caller, who holds the lock."""
    for version in range(found + 1, SCHEMA_VERSION + 1):
        for column in ADDED_BY[version]:
            added = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {column.table.name} ADD COLUMN {added}"))
        for index in INDEXES_ADDED_BY.get(version, ()):
            index.create(connection, checkfirst=True)
