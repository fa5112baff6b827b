"""Removes what the store need not keep: files of attempts that did not count, and of trials beyond the best ones.

In a thread of the coordinator, with connections of its own: no tick waits for a store. Each file is removed first and
then forgotten, so that whatever ends this between the two is repaired by the next round. Two at once are harmless.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.runtime.file_store import FileStore, file_store
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.access import Access
from highnoon.shared.store.stored_files import StoredFiles

_log = logging.getLogger("highnoon.coordinator.file_keeper")

_USELESS_EVERY_S = 60.0
_GRACE_S = 300.0
"""A holder that lost its lease may still be writing a file."""


class FileKeeper:
    """The files of one store and one ledger."""

    def __init__(self, store: FileStore, access: Access) -> None:
        self._store = store
        self._access = access
        self._files = StoredFiles(access.database)
        self._seen: dict[str, str] = {}

    def remove_useless(self, *, grace_s: float = _GRACE_S) -> int:
        """Removes files of attempts that did not count; how many. Raises FileStoreError, ServiceUnavailable."""
        file_ids = self._files.useless(grace_s=grace_s)
        removed: list[str] = []
        try:
            for file_id in file_ids:
                self._store.remove(file_id)
                removed.append(file_id)
        finally:
            if removed:
                self._files.forget(removed)
        return len(removed)

    def keep_best(self) -> int:
        """Removes artifacts beyond the best trials of each study that asks for it; how many. A fault of one study
        leaves the others alone."""
        count = 0
        for name, wanted in self._files.keeping_best().items():
            if self._seen.get(name) != wanted:
                try:
                    count += self._keep_best_of(name)
                    self._seen[name] = wanted
                except HighNoonError as error:
                    event(_log, "keep_best_failed", level=logging.WARNING, study=name, error=error)
        return count

    def keep_checkpoints(self) -> None:
        """Drops last checkpoints beyond those of the best trials: `remove_useless` removes their files."""
        for kept in self._files.keeping_checkpoints():
            if len(kept.numbers) <= kept.most:
                continue
            try:
                best: set[int] = set()
                if kept.most:
                    study = self._access.optuna(self._access.study(kept.study))
                    best = study.worth_extending(set(kept.numbers), kept.most)
                self._files.drop_checkpoints(kept.study_id, set(kept.numbers) - best)
            except HighNoonError as error:
                event(_log, "keep_checkpoints_failed", level=logging.WARNING, study=kept.study, error=error)

    def _keep_best_of(self, name: str) -> int:
        record = self._access.studies.find(name)
        if record is None:
            return 0
        study = self._access.optuna(record)
        beyond = study.artifacts_beyond_best(int(record.spec["keep_best"]))
        for artifact in beyond:
            self._store.remove(artifact.id)
        if beyond:
            study.remove_artifacts(beyond)
        return len(beyond)


class FileKeeping:
    """Rounds of a FileKeeper in a thread that ends with the process: a store that is frozen holds nothing else."""

    def __init__(self, settings: Settings, leads: Callable[[], bool]) -> None:
        """`leads` returns whether this coordinator leads now."""
        self._settings = settings
        self._leads = leads
        self._stopping = threading.Event()
        self._trouble = ""
        self._useless_at = 0.0
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)

    def start(self) -> None:
        """Does nothing where no store is set."""
        if self._settings.artifacts_url is not None:
            self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """A last round, waited for so long: a study that has just ended keeps its best only."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        settings = self._settings
        access = Access(settings.database_url or "")
        keeper: FileKeeper | None = None
        try:
            while True:
                is_last = self._stopping.wait(settings.presence_s)
                try:
                    if self._leads():
                        place, options = settings.artifacts_url or "", settings.artifacts_options
                        keeper = keeper or FileKeeper(file_store(place, options), access)
                        self._round(keeper)
                except Exception as error:  # of user's data, a library behind fsspec: the next round tries again
                    self._report(error)
                if is_last:
                    return
        finally:
            access.close()

    def _round(self, keeper: FileKeeper) -> None:
        removed = keeper.keep_best()
        if time.monotonic() >= self._useless_at:
            keeper.keep_checkpoints()
            removed += keeper.remove_useless()
            self._useless_at = time.monotonic() + _USELESS_EVERY_S
        self._trouble = ""
        if removed:
            event(_log, "files_removed", files=removed)

    def _report(self, error: Exception) -> None:
        """Once, until a round succeeds."""
        if not self._trouble:
            event(_log, "files_not_removed", level=logging.WARNING, error=f"{type(error).__name__}: {error}")
        self._trouble = str(error) or "trouble"
