"""Removes what the store need not keep: files of attempts that did not count, and of trials beyond the best ones.

In a thread of the coordinator, with connections of its own: no tick waits for a store. Each file is removed first and
then forgotten, so that whatever ends this between the two is repaired by the next round. Two at once are harmless.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import FileStoreError, HighNoonError
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.runtime.file_store import FileStore, file_store
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.access import Access
from highnoon.shared.store.stored_files import StoredFiles
from highnoon.shared.store.study_records import StudyRecord

if TYPE_CHECKING:
    from highnoon.shared.store.optuna_study import OptunaStudy

_log = logging.getLogger("highnoon.coordinator.file_keeper")

_USELESS_EVERY_S = 60.0
_GRACE_S = 300.0
"""A holder that lost its lease may still be writing a file."""
_MOST_IN_A_ROW = 5
"""After so many files that could not be removed the others wait for the next round: each may take long to fail."""


class FileKeeper:
    """The files of one store and one ledger. A file that cannot be removed is logged once and delays no other."""

    def __init__(self, store: FileStore, access: Access) -> None:
        self._store = store
        self._access = access
        self._files = StoredFiles(access.database)
        self._seen: dict[str, str] = {}
        self._changed: set[str] = set()
        self._stuck: set[str] = set()
        self._unfinished: set[str] = set()
        self._logged: set[str] = set()

    def remove_useless(self, *, grace_s: float = _GRACE_S) -> int:
        """Removes files of attempts that did not count; how many. Raises ServiceUnavailable.

        What could not be removed is tried again when there is nothing else to remove.
        """
        self._forget_unfinished()
        file_ids = self._files.useless(grace_s=grace_s, but=self._stuck)
        if not file_ids:
            self._stuck.clear()
        removed = self._removed(file_ids)
        self._stuck |= self._logged.intersection(file_ids)
        if removed:
            self._files.forget(removed)
        return len(removed)

    def keep_best(self) -> int:
        """Removes artifacts beyond the best trials of each study that asks for it; how many. A fault of one study
        leaves the others alone.

        A study that has changed is compared once more in the next round: a ticket may appear behind a newer one.
        """
        count = 0
        changed: set[str] = set()
        for name, change_token in self._files.keeping_best().items():
            if self._seen.get(name) != change_token:
                changed.add(name)
            if name in changed or name in self._changed:
                try:
                    count += self._keep_best_of(name)
                    self._seen[name] = change_token
                except Exception as error:  # of its data, or of a library behind its store
                    self._seen.pop(name, None)
                    event(_log, "keep_best_failed", level=logging.WARNING, study=name, error=_described(error))
        self._changed = changed
        return count

    def keep_checkpoints(self) -> None:
        """Drops the last checkpoints of trials that are neither among the best nor needed by others to go on from:
        `remove_useless` removes their files."""
        for kept in self._files.keeping_checkpoints():
            if len(kept.numbers) <= kept.most:
                continue
            try:
                record, needed = self._access.studies.get(kept.study), set[int]()
                if kept.most or _goes_on_from_checkpoints(record):
                    with self._opened(record) as study:
                        needed = study.worth_extending(set(kept.numbers), kept.most) | study.checkpoints_needed()
                self._files.drop_checkpoints(kept.study_id, set(kept.numbers) - needed)
            except Exception as error:  # of its data
                event(_log, "keep_checkpoints_failed", level=logging.WARNING, study=kept.study, error=_described(error))

    def _keep_best_of(self, name: str) -> int:
        record = self._access.studies.find(name)
        if record is None:
            return 0
        with self._opened(record) as study:
            beyond = study.artifacts_beyond_best(int(record.spec["keep_best"]))
            # The last study that names a file removes it.
            shared = self._files.named_elsewhere(name, beyond)
            removed = self._removed([artifact.id for artifact in beyond if artifact.id not in shared])
            done = [artifact for artifact in beyond if artifact.id in shared or artifact.id in removed]
            if done:
                study.remove_artifacts(done)
        if len(done) < len(beyond):
            self._unfinished.add(name)
        return len(removed)

    @contextmanager
    def _opened(self, record: StudyRecord) -> Iterator[OptunaStudy]:
        """Once it is over, the trials that were read are dropped: a coordinator runs for months. A study that runs
        keeps its trials, since it is compared every few seconds."""
        study = self._access.optuna(record)
        try:
            yield study
        finally:
            if record.is_over:
                self._access.store.forget_histories()

    def _removed(self, file_ids: Sequence[str]) -> list[str]:
        """Removes what can be removed, and stops early where the whole store seems to be away."""
        removed: list[str] = []
        failed: dict[str, FileStoreError] = {}
        in_a_row = 0
        for file_id in file_ids:
            try:
                self._store.remove(file_id)
            except FileStoreError as error:
                failed[file_id], in_a_row = error, in_a_row + 1
                if in_a_row == _MOST_IN_A_ROW:
                    break
            else:
                removed.append(file_id)
                in_a_row = 0
        self._log_once(failed)
        self._logged.difference_update(removed)
        return removed

    def _log_once(self, failed: Mapping[str, FileStoreError]) -> None:
        new = [file_id for file_id in failed if file_id not in self._logged]
        if new:
            event(_log, "file_not_removed", level=logging.WARNING, file=new[0], files=len(new), error=failed[new[0]])
            self._logged.update(new)

    def _forget_unfinished(self) -> None:
        """So that their files are tried again with the next round, and not with each."""
        for name in self._unfinished:
            self._seen.pop(name, None)
        self._unfinished.clear()


def _goes_on_from_checkpoints(record: StudyRecord) -> bool:
    written = record.spec.get("sampler")
    return written is not None and SamplerSpec.model_validate(written).goes_on_from_checkpoints


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, HighNoonError) else f"{type(error).__name__}: {error}"


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
            event(_log, "files_not_removed", level=logging.WARNING, error=_described(error))
        self._trouble = str(error) or "trouble"
