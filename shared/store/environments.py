"""The environments that attempts ran in, each stored once under its digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import environments


class Environments:
    """Raises ServiceUnavailable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def keep(self, digest: str, content: Mapping[str, Any]) -> None:
        """Stores it unless it is there."""
        row = insert(environments).values(digest=digest, content=dict(content))
        self._db.changed(row.on_conflict_do_nothing())

    def find(self, digest: str | None) -> Mapping[str, Any] | None:
        """The content; None where nothing was recorded."""
        found = self._db.rows(select(environments.c.content).where(environments.c.digest == digest))
        return found[0].content if found else None
