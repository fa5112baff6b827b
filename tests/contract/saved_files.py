"""Files of trials in a store, as supervisors put them there, and what is left of them."""

from __future__ import annotations

import io
from pathlib import Path

from sqlalchemy import select

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.errors import FileStoreError
from highnoon.shared.domain.lease import Lease
from highnoon.shared.runtime.file_store import FileStore
from highnoon.shared.store.schema import files
from tests.ledger import Ledger


def put(ledger: Ledger, store: FileStore, lease: Lease, file_id: str) -> tuple[int, str]:
    """Noted in the ledger, then written; returns size and digest."""
    ledger.attempts.note_file(lease, file_id)
    return store.put(file_id, io.BytesIO(file_id.encode()), int)


def stored(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def noted(ledger: Ledger) -> set[str]:
    with ledger.database.transaction() as connection:
        return set(connection.scalars(select(files.c.id)))


def saved(ledger: Ledger, store: FileStore, lease: Lease, file_id: str, name: str = "model.keras") -> Artifact:
    size, digest = put(ledger, store, lease, file_id)
    return Artifact.of_file(file_id, name, size_bytes=size, sha256=digest)


class Refusing:
    """A store that cannot remove these files; all, where none is given."""

    def __init__(self, store: FileStore, *refused: str, error: type[Exception] = FileStoreError) -> None:
        self._store, self._refused, self._error = store, refused, error
        self.tried: list[str] = []

    def remove(self, file_id: str) -> None:
        self.tried.append(file_id)
        if not self._refused or file_id in self._refused:
            raise self._error("permission denied")
        self._store.remove(file_id)
