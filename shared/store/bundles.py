"""Bundles in the ledger: archives of code, named by their content, with the signature of the cluster key.

Believes nothing: who reads one verifies it. A bundle never changes; only its signature may be made anew. It stays as
long as a study names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, exists, func, insert, select, update

from highnoon.shared.store.database import Database, IntegrityError
from highnoon.shared.store.schema import bundles, db_now, studies

_ON_ITS_WAY_S = 3600.0
"""For so long after it was handed in a bundle may wait for the study that names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRow:
    """What may be known of a bundle before its archive is fetched. `size_bytes` is the archive's as it lies there."""

    digest: str
    signature: str
    size_bytes: int


class Bundles:
    """Statements about bundles. All raise ServiceUnavailable when the database is unreachable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, digest: str, archive: bytes, signature: str) -> None:
        """Keeps a bundle; one that is there already is only signed again."""
        again = update(bundles).where(bundles.c.digest == digest).values(signature=signature, created_at=db_now())
        row = {"digest": digest, "archive": archive, "signature": signature, "size_bytes": len(archive)}
        with self._db.transaction() as connection:
            if connection.execute(again).rowcount:
                return
        try:
            with self._db.transaction() as connection:
                connection.execute(insert(bundles).values(**row, created_at=db_now()))
        except IntegrityError:  # somebody else was quicker
            with self._db.transaction() as connection:
                connection.execute(again)

    def find(self, digest: str) -> BundleRow | None:
        """The bundle without its archive, or None."""
        size = func.length(bundles.c.archive).label("size_bytes")
        statement = select(bundles.c.digest, bundles.c.signature, size).where(bundles.c.digest == digest)
        with self._db.transaction() as connection:
            row = connection.execute(statement).mappings().first()
        return None if row is None else BundleRow(**row)

    def archive(self, digest: str) -> bytes:
        """The archive of a bundle that was found; empty when it has gone since."""
        with self._db.transaction() as connection:
            archive = connection.scalar(select(bundles.c.archive).where(bundles.c.digest == digest))
        return bytes(archive or b"")

    def drop_unused(self) -> int:
        """Removes what no study names and nobody handed in lately; returns how many. Needs the owner's account."""
        named = exists().where(studies.c.spec["bundle"].as_string() == bundles.c.digest)
        unused = delete(bundles).where(bundles.c.created_at < db_now() - _ON_ITS_WAY_S, ~named)
        with self._db.transaction() as connection:
            return connection.execute(unused).rowcount
