"""Bundles in the ledger: archives of code, named by their content, with the signature of the cluster key.

Checks nothing: the reader verifies. A bundle never changes; only its signature may be renewed. It stays as long as a
study names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert

from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import bundles, db_now, studies

_ON_ITS_WAY_S = 3600.0
"""So long after its submission a bundle may wait for the study that names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRow:
    """A bundle without its archive. `size_bytes` is the stored archive's."""

    digest: str
    signature: str
    size_bytes: int


class Bundles:
    """Statements about bundles. All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, digest: str, archive: bytes, signature: str) -> None:
        """Keeps a bundle; one that is there already is only signed again."""
        row = {"digest": digest, "archive": archive, "signature": signature, "size_bytes": len(archive)}
        new = insert(bundles).values(**row, created_at=db_now())
        again = {"signature": signature, "created_at": db_now()}
        self._db.changed(new.on_conflict_do_update(index_elements=["digest"], set_=again))

    def find(self, digest: str) -> BundleRow | None:
        """The bundle without its archive, or None."""
        size = func.length(bundles.c.archive).label("size_bytes")
        statement = select(bundles.c.digest, bundles.c.signature, size).where(bundles.c.digest == digest)
        found = self._db.rows(statement)
        return BundleRow(**found[0]._mapping) if found else None

    def archive(self, digest: str) -> bytes:
        """The archive of a bundle that was found; empty when it has gone since."""
        found = self._db.rows(select(bundles.c.archive).where(bundles.c.digest == digest))
        return bytes(found[0].archive) if found else b""

    def drop_unused(self) -> int:
        """Removes what no study names and was not submitted lately; returns how many. Needs the owner's account."""
        named = exists().where(studies.c.spec["bundle"].as_string() == bundles.c.digest)
        return self._db.changed(delete(bundles).where(bundles.c.created_at < db_now() - _ON_ITS_WAY_S, ~named))
