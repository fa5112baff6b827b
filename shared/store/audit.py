"""The audit: who changed what, one row for each change that a person made, in the change's own transaction.

What the coordinator and the workers do by themselves is in their logs and in the attempts. `functions.sql` keeps rows
from being changed, and from being deleted within a year.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from highnoon.shared.domain.scalars import is_storable
from highnoon.shared.runtime.processes import runs_only_our_code
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import audit, db_now, studies

_KEEP_S = 400 * 86_400.0
"""Longer than the year for which the database refuses to delete a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who makes a change, and by what: `anna@node-a` by the command line, a token's name at an address by a page."""

    name: str
    via: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change; `at` is on the database's clock, `account` the one that PostgreSQL let in."""

    id: int
    at: float
    actor: str
    via: str
    account: str
    action: str
    study: str | None
    details: dict[str, Any] | None


_acting: ContextVar[Actor | None] = ContextVar("highnoon_actor", default=None)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Names who is behind the changes within: for a process that acts for several people."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def record(
    connection: Connection, action: str, *, study: str | None = None, study_id: int | None = None, **details: Any
) -> None:
    """Adds a change to the audit, as a part of the transaction that makes it; of the study with that name or id."""
    actor = _acting.get() or _user_of_this_process()
    name = select(studies.c.name).where(studies.c.id == study_id).scalar_subquery() if study is None else study
    # What JSON does not know is written as text: a change must not fail because of its entry.
    written = json.loads(json.dumps(details, default=str)) or None
    row = {"actor": actor.name[:200], "via": actor.via, "action": action, "details": written}
    connection.execute(insert(audit).values(**row, study=name, at=db_now()))


class AuditLog:
    """Statements about the audit. All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, action: str, *, study: str | None = None, **details: Any) -> None:
        """A change that is made elsewhere, by another program or in another database."""
        with self._db.transaction() as connection:
            record(connection, action, study=study, **details)

    def entries(self, *, study: str | None = None, limit: int) -> list[AuditEntry]:
        """The newest ones, oldest first; of one study where it is given."""
        if study is not None and not is_storable(study):
            return []
        statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if study is not None:
            statement = statement.where(audit.c.study == study)
        names = [field.name for field in fields(AuditEntry)]
        rows = [row._mapping for row in self._db.rows(statement)]
        return [AuditEntry(**{name: row[name] for name in names}) for row in reversed(rows)]

    def remove_old(self) -> int:
        """Removes what is older than it has to be kept; returns how many."""
        return self._db.changed(delete(audit).where(audit.c.at < db_now() - _KEEP_S))


def _user_of_this_process() -> Actor:
    """By the user id: LOGNAME and USER are what the caller wants them to be."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container without an entry for it
        name = f"uid {uid}"
    return Actor(name=f"{name}@{socket.gethostname()}", via="command line" if runs_only_our_code() else "python")
