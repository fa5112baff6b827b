"""The artifacts of trials that run in this process: copied while they run, stored when they end.

They are in the store before their trial ends, and named by its attributes from its end on. What cannot be stored costs
the trial nothing but a message.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from typing_extensions import Self

from highnoon.shared.domain.artifact import MOST_ARTIFACTS, Artifact
from highnoon.shared.domain.errors import FileStoreError, HighNoonError
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.staged_files import SavedFile, opened_copy
from highnoon.shared.runtime.file_store import FileStore, file_store
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.optuna_study import OptunaStudy

logger = logging.getLogger("highnoon")


Place = Callable[[], str | Path]
"""Called at the first file, so that the environment's settings are not read without one."""


class LocalFiles:
    """The files of one call of `optimize`, in a temporary folder until they are stored at the place."""

    def __init__(self, place: Place | None) -> None:
        self._place = place
        self.call = secrets.token_hex(16)
        """The ids of its files are derived from it, so that a later call knows the files of a trial that was killed."""
        self._stored: dict[int, list[str]] = {}
        """The ids of files that this call has begun to store, by the number of their trial."""
        self._copies = tempfile.TemporaryDirectory(prefix="highnoon-files-", ignore_cleanup_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._copies.cleanup()

    @property
    def checkpoints(self) -> Path:
        """The folder for checkpoints of trials that go on from one another."""
        return Path(self._copies.name, "checkpoints")

    def folder(self, number: int) -> Path:
        """Where the trial of this number makes copies."""
        return Path(self._copies.name, str(number))

    def with_artifacts(self, outcome: Outcome, number: int, saved: Mapping[str, SavedFile]) -> Outcome:
        """The outcome with what its trial has saved, which is in the store then."""
        artifacts: list[Artifact] = []
        missing: list[str] = []
        for name, copy in saved.items() if self._place is not None else ():
            file_id = _file_id(self.call, number, len(artifacts))
            self._stored.setdefault(number, []).append(file_id)
            try:
                with opened_copy(self.folder(number), copy) as source:
                    size, digest = self._store.put(file_id, source, int)
                artifacts.append(Artifact.of_file(file_id, name, size_bytes=size, sha256=digest))
            except (HighNoonError, OSError) as error:
                event(logger, "not_stored", level=logging.WARNING, trial=number, file=name, reason=error)
                missing.append(f"not stored: {name} ({error})")
        shutil.rmtree(self.folder(number), ignore_errors=True)
        message = "; ".join(filter(None, [outcome.message, *missing]))
        return replace(outcome, artifacts=tuple(artifacts), message=message)

    def remove_stored(self, number: int) -> None:
        """Removes what a trial of this call has stored, which ends in another way."""
        with contextlib.suppress(HighNoonError):
            for file_id in {*self._stored.get(number, ())}:
                self._store.remove(file_id)

    def remove_all_of(self, call: str, number: int) -> None:
        """Removes what a trial of another call had stored, which was killed before its end.

        Its files are those up to the first that is not there, of which there may be a part. The last one goes first: a
        later call finds what this one has left.
        """
        with contextlib.suppress(HighNoonError):
            ids = [_file_id(call, number, index) for index in range(MOST_ARTIFACTS)]
            whole = list(takewhile(self._is_stored, ids))
            for file_id in reversed(ids[: len(whole) + 1]):
                self._store.remove(file_id)

    def _is_stored(self, file_id: str) -> bool:
        with contextlib.suppress(FileStoreError), self._store.opened(file_id):
            return True
        return False

    def keep_best(self, study: OptunaStudy, count: int) -> None:
        """Removes the artifacts of all but the best trials; what fails is tried again after the next trial."""
        with contextlib.suppress(FileStoreError, HighNoonError):
            beyond = study.artifacts_beyond_best(count)
            for artifact in beyond:
                self._store.remove(artifact.id)
            if beyond:
                study.remove_artifacts(beyond)

    @cached_property
    def _store(self) -> FileStore:
        if self._place is None:
            raise FileStoreError("a rehearsal stores nothing")
        return file_store(self._place(), load_settings().artifacts_options)


def _file_id(call: str, number: int, index: int) -> str:
    return uuid5(NAMESPACE_OID, f"{call}:{number}:{index}").hex
