"""Files of a trial: nothing waits for a store, what is stored is noted before, and only what is whole counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from highnoon.shared.domain.artifact import MOST_ARTIFACTS, Checkpoint
from highnoon.shared.domain.errors import FileStoreError, LeaseLost, ServiceUnavailable
from highnoon.shared.domain.lease import Lease
from highnoon.shared.objective.staged_files import SavedFile
from highnoon.shared.runtime.file_store import copied
from highnoon.shared.runtime.settings import load_settings
from highnoon.workers import store_thread, trial_files
from highnoon.workers.io_thread import IoThread
from highnoon.workers.store_thread import StoreThread
from highnoon.workers.trial_files import Folders, TrialFiles
from tests.support import eventually
from tests.unit.test_trial_services import LEASE

ADDRESSES = {"database_url": "postgresql://u@h/d", "redis_url": "redis://h"}


@dataclass
class World:
    """Ledger and store at once. `answers` is cleared to freeze the store."""

    folders: Folders
    noted: list[str] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    content: dict[str, bytes] = field(default_factory=dict)
    ledger_error: Exception | None = None
    ledger_answers: threading.Event = field(default_factory=threading.Event)
    refused: int = 0
    store_error: Exception | None = None
    answers: threading.Event = field(default_factory=threading.Event)
    freezes_at_the_end: bool = False
    removed: list[str] = field(default_factory=list)

    def note_file(self, lease: Lease, file_id: str) -> None:
        assert self.ledger_answers.wait(30.0)
        if self.ledger_error is not None:
            self.refused += 1
            raise self.ledger_error
        self.noted.append(file_id)

    def keep_checkpoint(self, lease: Lease, checkpoint: Checkpoint) -> None:
        assert checkpoint.id in self.content
        self.checkpoints.append(checkpoint)

    def save(self, number: int, name: str | None, content: bytes) -> SavedFile:
        self.folders.saved.mkdir(exist_ok=True)
        (self.folders.saved / str(number)).write_bytes(content)
        return SavedFile(file=str(number), name=name)


class Sink:
    def __init__(self) -> None:
        self.content = b""

    def write(self, chunk: bytes) -> None:
        self.content += chunk


class Store:
    """The store as its thread has it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def put(self, file_id: str, source: BinaryIO, moved: Callable[[int], object]) -> tuple[int, str]:
        assert file_id in self._world.noted, "noted before it is written"
        if not self._world.freezes_at_the_end:
            assert self._world.answers.wait(30.0)
        if self._world.store_error is not None:
            raise self._world.store_error
        sink = Sink()
        try:
            return copied(source, sink, moved)
        finally:
            assert self._world.answers.wait(30.0)
            # As fsspec closes a file, also after an error.
            self._world.content[file_id] = sink.content

    def remove(self, file_id: str) -> None:
        del self._world.content[file_id]
        self._world.removed.append(file_id)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    found = World(folders=Folders(saved=tmp_path / "saved", checkpoints=tmp_path / "checkpoints"))
    found.answers.set()
    found.ledger_answers.set()
    monkeypatch.setattr(store_thread, "file_store", lambda *_: Store(found))
    monkeypatch.setattr(trial_files, "_AGAIN_S", 0.01)
    yield found
    found.answers.set()
    found.ledger_answers.set()


@pytest.fixture
def files(world: World, tmp_path: Path) -> Iterator[TrialFiles]:
    io = IoThread()
    settings = load_settings({}, home=tmp_path / "home", artifacts_url="/elsewhere", **ADDRESSES)
    thread = StoreThread(settings, io.wakeup_fd, stalled_s=0.2)
    yield TrialFiles(thread, io, cast(Any, world), LEASE, world.folders)
    world.answers.set()
    world.ledger_answers.set()
    assert io.stop(60.0)
    thread.close()


def settle(files: TrialFiles) -> None:
    deadline = time.monotonic() + 60.0
    while files.advance():
        assert time.monotonic() < deadline, "still under way"
        time.sleep(0.002)


def test_what_is_saved_is_stored_and_the_newest_of_a_name_counts(world: World, files: TrialFiles) -> None:
    files.take(world.save(1, "model", b"first"))
    files.take(world.save(2, "plot", b"plot"))
    settle(files)
    files.take(world.save(3, "model", b"second"))
    files.take(world.save(4, "model", b"third"))  # in place of the one that waits
    settle(files)

    stored = {artifact.name: world.content[artifact.id] for artifact in files.artifacts}
    assert stored == {"model": b"third", "plot": b"plot"}
    assert len(world.content) == 2 and files.missing == ""
    assert list(world.folders.saved.iterdir()) == [], "no copy is left"


def test_frozen_store_delays_nothing_and_is_left_alone(world: World, files: TrialFiles) -> None:
    world.answers.clear()
    files.take(world.save(1, "model", b"model"))
    settle(files)
    assert files.artifacts == () and files.missing.startswith("not stored: model (the store moved nothing for 0.2 s")

    # And the next file, of the next trial perhaps, is not waited for
    files.take(world.save(2, "plot", b"plot"))
    assert not files.advance()
    assert "plot" in files.missing


@pytest.mark.parametrize("at_the_end", [False, True], ids=["before it has moved anything", "at its end"])
@pytest.mark.parametrize("name", ["model", None], ids=["artifact", "checkpoint"])
def test_copy_that_was_given_up_leaves_no_file_when_the_store_answers(
    world: World, files: TrialFiles, monkeypatch: pytest.MonkeyPatch, name: str | None, at_the_end: bool
) -> None:
    monkeypatch.setattr(store_thread, "_LEFT_ALONE_S", 0.0)
    world.freezes_at_the_end = at_the_end
    world.answers.clear()
    files.take(world.save(1, name, b"model"))
    settle(files)

    world.answers.set()
    eventually(lambda: world.removed == world.noted[:1], 60, what="the late file is removed")
    assert world.content == {}

    # And what is saved afterwards has another file
    files.take(world.save(2, name, b"another"))
    settle(files)
    assert list(world.content.values()) == [b"another"] and len(set(world.noted)) == 2


def test_refusing_store_costs_the_artifact_only(world: World, files: TrialFiles) -> None:
    world.store_error = FileStoreError("s3://b: PermissionError")
    files.take(world.save(1, "model", b"model"))
    settle(files)
    assert files.artifacts == () and files.missing == "not stored: model (s3://b: PermissionError)"
    world.store_error = None
    files.take(world.save(2, "model", b"model"))
    settle(files)
    assert len(files.artifacts) == 1 and files.missing == ""


def test_outage_of_the_ledger_is_waited_for_and_a_lost_lease_ends_it(world: World, files: TrialFiles) -> None:
    world.ledger_error = ServiceUnavailable("away")
    files.take(world.save(1, "model", b"model"))
    for _ in range(20):
        assert files.advance()
        time.sleep(0.002)
    world.ledger_error = None
    settle(files)
    assert len(files.artifacts) == 1

    world.ledger_error = LeaseLost("gone")
    files.take(world.save(2, "model", b"model"))
    with pytest.raises(LeaseLost):
        settle(files)


def test_checkpoints_take_turns_in_two_files_and_the_last_is_packed_at_the_end(world: World, files: TrialFiles) -> None:
    for number in (1, 2, 3):
        files.take(world.save(number, None, b"x" * number))
        settle(files)
    assert [kept.size_bytes for kept in world.checkpoints] == [1, 2, 3]
    assert all(kept.attempt == LEASE.attempt for kept in world.checkpoints)
    first, second, third = (kept.id for kept in world.checkpoints)
    assert first == third != second, "the one that the ticket names is never written to"

    world.folders.checkpoints.mkdir()
    (world.folders.checkpoints / "state").write_text("at the end")
    files.take(world.save(4, "model", b"of no use: this attempt does not count"))
    files.end(goes_on=True)
    settle(files)
    assert len(world.checkpoints) == 4 and world.checkpoints[-1].id == second
    assert files.artifacts == ()


def test_older_copy_is_removed_when_a_newer_one_came_during_an_outage_of_the_ledger(
    world: World, files: TrialFiles
) -> None:
    # Given a database that is frozen, so that a statement waits for its deadline
    world.ledger_answers.clear()
    world.ledger_error = ServiceUnavailable("frozen")
    files.take(world.save(1, None, b"x"))
    assert files.advance()
    files.take(world.save(2, None, b"xx"))
    world.ledger_answers.set()
    eventually(lambda: files.advance() and world.refused, 60, what="the statement has failed")

    world.ledger_error = None
    settle(files)

    assert [kept.size_bytes for kept in world.checkpoints] == [2]
    assert list(world.folders.saved.iterdir()) == []


def test_files_that_wait_count_to_those_that_a_trial_may_save(world: World, files: TrialFiles) -> None:
    for number in range(MOST_ARTIFACTS):
        files.take(world.save(number, f"{number}", b"x"))
    with pytest.raises(ValueError, match="more than 100 files"):
        files.take(world.save(MOST_ARTIFACTS, "one more", b"x"))
    settle(files)


def test_outcome_that_counts_needs_no_checkpoint(world: World, files: TrialFiles) -> None:
    files.take(world.save(1, None, b"x"))
    files.take(world.save(2, "model", b"model"))
    files.end(goes_on=False)
    settle(files)
    assert world.checkpoints == [] and [artifact.name for artifact in files.artifacts] == ["model"]


def test_worker_without_a_place_says_what_to_set(world: World, tmp_path: Path) -> None:
    io = IoThread()
    thread = StoreThread(load_settings({}, home=tmp_path, **ADDRESSES), io.wakeup_fd)
    files = TrialFiles(thread, io, cast(Any, world), LEASE, world.folders)
    files.take(world.save(1, "model", b"model"))
    assert not files.advance()
    assert (
        files.missing == "not stored: model (this worker has no place for artifacts, which HIGHNOON_ARTIFACTS_URL sets)"
    )
    assert thread.limits.checkpoint_s is None
    assert io.stop(5.0)


def test_checkpoints_stay_here_where_the_store_is_this_nodes_own_home(tmp_path: Path) -> None:
    def every_s(url: str) -> float | None:
        return StoreThread(load_settings({}, home=tmp_path, artifacts_url=url, **ADDRESSES), 0).limits.checkpoint_s

    assert every_s(str(tmp_path / "artifacts")) is None
    assert every_s("s3://bucket/folder") == every_s("/mnt/artifacts") == 60.0
