"""Stores what a trial saves, artifacts and checkpoints, and fetches the checkpoint of an attempt elsewhere.

Copies run in a thread of their own, and the statements that note them in the I/O thread: neither monitor nor leases
wait for a store. One file at a time: it is noted in the ledger, copied, and only then counts, an artifact with the
trial's outcome, a checkpoint at once. A store that does not move is left alone for a while, and
trials end without what it did not take.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from highnoon.shared.domain.artifact import MOST_ARTIFACTS, Artifact, Checkpoint
from highnoon.shared.domain.errors import FileStoreError, MissingExtra, ServiceUnavailable
from highnoon.shared.domain.lease import Lease
from highnoon.shared.objective.staged_files import SavedFile, opened_copy, pack_copy, remove_copy, unpack
from highnoon.shared.runtime.file_store import FileStore, download
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.attempts import Attempts
from highnoon.workers.io_thread import IoThread
from highnoon.workers.store_thread import GivenUp, StoreThread

_log = logging.getLogger("highnoon.workers.trial_files")

_AGAIN_S = 1.0
"""During an outage of the ledger."""

_LAST = SavedFile(file="0", name=None)
"""The checkpoint that an ended trial has left: packed by us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Of one attempt: copies that its trial made, and its checkpoints."""

    saved: Path
    checkpoints: Path


class TrialFiles:
    """The files of one attempt. For the monitor: no method waits. `advance` raises LeaseLost."""

    def __init__(self, thread: StoreThread, io: IoThread, attempts: Attempts, lease: Lease, folders: Folders) -> None:
        self._thread, self._io, self._attempts, self._lease, self._folders = thread, io, attempts, lease, folders
        self._waiting: dict[str | None, SavedFile] = {}
        self._ids: dict[str, str] = {}
        self._named_id, self._spare_id = uuid4().hex, uuid4().hex
        self._stored: dict[str, Artifact] = {}
        self._missing: dict[str, str] = {}
        self._steps: Iterator[Future[Any]] | None = None
        self._step: Future[Any] | None = None
        self._current: SavedFile | None = None
        self._is_copying = False
        self._again_at = 0.0
        self.not_fetched = ""
        """Why there is no checkpoint where one was to be fetched; empty when there is."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What is in the store by now."""
        return tuple(self._stored.values())

    @property
    def missing(self) -> str:
        """For people: what was saved and is not stored, and why; empty when all is."""
        names = ", ".join(sorted(self._missing))
        return f"not stored: {names} ({next(iter(self._missing.values()))})" if names else ""

    def take(self, saved: SavedFile) -> None:
        """A copy that the trial has made; a newer one replaces one of its name that waits. Raises ValueError."""
        if saved.name is not None and len({*self._ids, *self._waiting, saved.name} - {None}) > MOST_ARTIFACTS:
            raise ValueError(f"more than {MOST_ARTIFACTS} files")
        if saved.name in self._waiting:
            self._drop(self._waiting[saved.name])
        self._waiting[saved.name] = saved

    def end(self, *, goes_on: bool, keeps_checkpoint: bool = False) -> None:
        """The trial has ended: of what waits, its artifacts are of use, unless another attempt follows.

        The checkpoint that it has left is, for that attempt, or where it is kept for a longer training.
        """
        useless = [saved for name, saved in self._waiting.items() if goes_on or name is None]
        for saved in useless:
            self._drop(self._waiting.pop(saved.name))
        travels = goes_on and self._thread.limits.checkpoint_s is not None
        is_kept = keeps_checkpoint and self._thread.has_place
        if (travels or is_kept) and any(self._folders.checkpoints.glob("*")):
            self._waiting[None] = _LAST

    def fetch(self, checkpoint: Checkpoint) -> None:
        """Begins to make the folder of checkpoints from the store, where that answers: see `not_fetched`."""
        self._steps, self._step = self._fetch(checkpoint), None

    def advance(self) -> bool:
        """Goes on with what there is to copy; True while something is under way."""
        if self._is_copying and self._thread.has_stalled():
            self.give_up(f"the store moved nothing for {self._thread.stalled_s:g} seconds")
        while True:
            if self._steps is None:
                if not self._waiting or time.monotonic() < self._again_at:
                    return bool(self._waiting)
                self._current = self._waiting.pop(next(iter(self._waiting)))
                self._steps, self._step = self._store(self._current), None
            if self._step is not None and not self._step.done():
                return True
            try:
                self._step = next(self._steps)
            except StopIteration:
                self._steps = self._current = None

    def give_up(self, why: str) -> None:
        """Copies nothing more: neither the trial's end nor the next trial waits for this store."""
        if self._is_copying:
            self._thread.leave_alone()
            self._replace_id()
        if self._is_copying and self._current is None:
            self.not_fetched = why
        for saved in (*([self._current] if self._current else []), *self._waiting.values()):
            self._lose(saved, why)
        self._waiting.clear()
        self._steps = self._current = None
        self._is_copying = False

    def _replace_id(self) -> None:
        """The copy that was given up may still end, or be removed, when another one has long been made."""
        if self._current is not None and self._current.name is not None:
            self._ids[self._current.name] = uuid4().hex
        elif self._current is not None:
            self._spare_id = uuid4().hex

    def _store(self, saved: SavedFile) -> Iterator[Future[Any]]:
        """Stores one file; yields what has to be over before it goes on."""
        if self._thread.trouble:
            self._lose(saved, self._thread.trouble)
            return
        name = saved.name
        file_id = self._spare_id if name is None else self._ids.setdefault(name, uuid4().hex)
        if name is not None:
            # From here on the store may have a part of the new file in the place of the earlier one.
            self._stored.pop(name, None)
        try:
            noting = self._io.submit(partial(self._attempts.note_file, self._lease, file_id))
            yield noting
            noting.result()
            copying = self._thread.submit(partial(self._copy, saved, file_id))
            self._is_copying = True
            yield copying
            self._is_copying = False
            size, digest = copying.result()
            if name is None:
                kept = Checkpoint(id=file_id, attempt=self._lease.attempt, size_bytes=size, sha256=digest)
                keeping = self._io.submit(partial(self._attempts.keep_checkpoint, self._lease, kept))
                # Where its answer is lost, the ticket may have either: the next one must replace neither.
                self._named_id, self._spare_id, before = file_id, uuid4().hex, self._named_id
                yield keeping
                keeping.result()
                self._spare_id = before
            else:
                self._stored[name] = Artifact.of_file(file_id, name, size_bytes=size, sha256=digest)
                self._missing.pop(name, None)
            self._drop(saved)
        except ServiceUnavailable:
            if name in self._waiting:  # a newer copy, which came during the outage
                self._drop(saved)
            else:
                self._waiting[name] = saved
            self._again_at = time.monotonic() + _AGAIN_S
        except (FileStoreError, MissingExtra, OSError) as error:
            self._lose(saved, error)

    def _fetch(self, checkpoint: Checkpoint) -> Iterator[Future[Any]]:
        if trouble := self._thread.trouble:
            self.not_fetched = trouble
            self._event("checkpoint_not_fetched", trouble)
            return
        fetching = self._thread.submit(partial(self._unpack, checkpoint))
        self._is_copying = True
        yield fetching
        self._is_copying = False
        error = fetching.exception()
        if error is not None:
            self.not_fetched = str(error)
            self._event("checkpoint_not_fetched", error)
        else:
            self._event("checkpoint_fetched", None, level=logging.INFO, of_attempt=checkpoint.attempt)

    def _drop(self, saved: SavedFile) -> None:
        with suppress(OSError):
            remove_copy(self._folders.saved, saved)

    def _lose(self, saved: SavedFile, why: object) -> None:
        if saved.name is not None:
            self._missing[saved.name] = str(why)
        self._drop(saved)
        self._event("not_stored", why, file=saved.name or "checkpoint")

    def _event(self, action: str, why: object, *, level: int = logging.WARNING, **fields: object) -> None:
        event(_log, action, level=level, **self._lease.ids, **fields, reason=why)

    # The following run in the thread of the store.

    def _copy(
        self, saved: SavedFile, file_id: str, store: FileStore, moved: Callable[[int], object]
    ) -> tuple[int, str]:
        if saved is _LAST:
            pack_copy(self._folders.checkpoints, self._folders.saved, saved, moved)
        with opened_copy(self._folders.saved, saved) as source:
            if saved.name is not None and os.fstat(source.fileno()).st_size > self._thread.limits.artifact_bytes:
                raise FileStoreError("it is larger than HIGHNOON_ARTIFACT_LIMIT_BYTES")
            try:
                stored = store.put(file_id, source, moved)
                moved(0)
            except GivenUp:
                # Its note in the ledger may be gone by now, and no other process would remove it.
                store.remove(file_id)
                raise
            return stored

    def _unpack(self, checkpoint: Checkpoint, store: FileStore, moved: Callable[[int], object]) -> None:
        self._folders.saved.mkdir(parents=True, exist_ok=True)
        packed = Artifact(id=checkpoint.id, name="the checkpoint", sha256=checkpoint.sha256)
        archive = download(store, packed, self._folders.saved / _LAST.file, moved)
        moved(0)  # the trial may have begun without it
        with archive.open("rb") as source:
            unpack(source, self._folders.checkpoints, moved)
        archive.unlink()
