"""Artifacts and checkpoints in the ledger: they appear with the outcome, and nothing that does not count is kept."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from sqlalchemy import select, text

from highnoon.coordinator.file_keeper import FileKeeper
from highnoon.shared.domain.artifact import Artifact, Checkpoint
from highnoon.shared.domain.errors import FileStoreError, LeaseLost
from highnoon.shared.domain.lease import Disposition, Lease
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.file_store import FileStore, file_store
from highnoon.shared.store.backup import backup
from highnoon.shared.store.restore import restore
from highnoon.shared.store.schema import files, tickets
from highnoon.shared.store.stored_files import StoredFiles
from highnoon.shared.store.study_records import StudyRecord
from tests.ledger import BERT, DONE, FAILED, KILLED, Ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def store(folder: Path) -> FileStore:
    return file_store(folder)


@pytest.fixture
def keeper(store: FileStore, ledger: Ledger) -> FileKeeper:
    return FileKeeper(store, ledger.access)


def saved(ledger: Ledger, store: FileStore, lease: Lease, file_id: str, name: str = "model.keras") -> Artifact:
    """As a supervisor does it: noted, then written."""
    ledger.attempts.note_file(lease, file_id)
    size, digest = store.put(file_id, io.BytesIO(file_id.encode()), int)
    return Artifact.of_file(file_id, name, size_bytes=size, sha256=digest)


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def noted(ledger: Ledger) -> set[str]:
    with ledger.database.transaction() as connection:
        return set(connection.scalars(select(files.c.id)))


def test_artifacts_appear_with_the_outcome_as_optuna_knows_them(
    ledger: Ledger, store: FileStore, folder: Path, tmp_path: Path
) -> None:
    # Given a trial whose file is stored already
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    artifact = saved(ledger, store, lease, "a1")
    assert ledger.access.store.artifacts("digits") == {}

    # When it ends
    ledger.finish(lease, replace(DONE, artifacts=(artifact,)))

    # Then we and Optuna find the file
    assert ledger.access.store.artifacts("digits") == {0: [artifact]}
    storage = optuna.storages.get_storage(ledger.database.url)
    (meta,) = get_all_artifact_meta(ledger.trial(lease), storage=storage)
    assert (meta.artifact_id, meta.filename, meta.encoding) == ("a1", "model.keras", None)
    target = tmp_path / "down"
    download_artifact(artifact_store=FileSystemArtifactStore(folder), artifact_id="a1", file_path=str(target))
    assert target.read_bytes() == b"a1"


def test_only_the_holder_of_a_lease_notes_files_and_checkpoints(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lost = ledger.start(ticket)
    ledger.attempts.note_file(lost, "a1")
    ledger.attempts.note_file(lost, "a1")  # its answer was lost
    ledger.expire(lost)
    ledger.attempts.reap(ticket, 1, message="gone", only_expired=True)
    held = ledger.start(ticket, BERT)

    late = Checkpoint(id="c1", attempt=1, size_bytes=3, sha256="ab")
    for act in (lambda: ledger.attempts.note_file(lost, "a2"), lambda: ledger.attempts.keep_checkpoint(lost, late)):
        with pytest.raises(LeaseLost):
            act()
    assert noted(ledger) == {"a1"}

    newer = Checkpoint(id="c2", attempt=2, size_bytes=3, sha256="ab")
    ledger.attempts.keep_checkpoint(held, newer)
    assert held.checkpoint is None
    ledger.finish(held, KILLED, Disposition.RELEASE)
    assert ledger.start(ticket).checkpoint == newer, "the next attempt has it"


def test_files_of_attempts_that_did_not_count_are_removed(
    ledger: Ledger, store: FileStore, folder: Path, keeper: FileKeeper
) -> None:
    # Given a lost attempt with a file and two checkpoints, and one that runs and goes on from the second
    (ticket,) = ledger.tickets(ledger.study(keep_checkpoints=0))
    lost = ledger.start(ticket)
    saved(ledger, store, lost, "lost-model")
    for checkpoint in ("c1", "c2"):
        saved(ledger, store, lost, checkpoint)
        ledger.attempts.keep_checkpoint(lost, Checkpoint(id=checkpoint, attempt=1, size_bytes=2, sha256="ab"))
    assert keeper.remove_useless(grace_s=0.0) == 0, "it may still come to count"
    ledger.expire(lost)
    ledger.attempts.reap(ticket, 1, message="gone", only_expired=True)
    held = ledger.start(ticket, BERT)
    saved(ledger, store, held, "model")

    # Then what is left is the checkpoint, and what the running attempt has
    assert keeper.remove_useless() == 0, "its holder may still be writing"
    assert keeper.remove_useless(grace_s=0.0) == 2
    assert kept(folder) == noted(ledger) == {"c2", "model"}

    # And once the trial is over, what it names
    ledger.finish(held, replace(DONE, artifacts=(Artifact.of_file("model", "m", size_bytes=5, sha256=""),)))
    keeper.keep_checkpoints()
    assert keeper.remove_useless(grace_s=0.0) == 1
    assert kept(folder) == noted(ledger) == {"model"}

    # And nothing of a study that was deleted
    ledger.access.store.delete_study("digits")
    assert keeper.remove_useless(grace_s=0.0) == 1
    assert kept(folder) == noted(ledger) == set()


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


def refusing(ledger: Ledger, store: FileStore, *refused: str) -> tuple[FileKeeper, Refusing]:
    chosen: Any = Refusing(store, *refused)
    return FileKeeper(chosen, ledger.access), chosen


def test_a_store_that_is_away_is_tried_again(
    ledger: Ledger, store: FileStore, keeper: FileKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    for number in range(20):
        saved(ledger, store, lease, f"a{number}")
    ledger.finish(lease, DONE)

    away, seen = refusing(ledger, store)
    assert away.remove_useless(grace_s=0.0) == 0
    assert len(seen.tried) == 5, "a store that is away is not asked for each file"
    assert len(noted(ledger)) == 20, "what is not removed is not forgotten"
    assert len([record for record in caplog.records if "file_not_removed" in record.getMessage()]) == 1
    assert keeper.remove_useless(grace_s=0.0) == 20


def test_a_file_that_cannot_be_removed_delays_no_other_and_is_logged_once(
    ledger: Ledger, store: FileStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    for name in ("a1", "a2", "a3"):
        saved(ledger, store, lease, name)
    ledger.finish(lease, DONE)

    keeper, seen = refusing(ledger, store, "a1")
    assert keeper.remove_useless(grace_s=0.0) == 2
    assert kept(folder) == noted(ledger) == {"a1"}
    for _ in range(4):
        assert keeper.remove_useless(grace_s=0.0) == 0
    assert seen.tried.count("a1") > 1, "it is tried again"
    assert len([record for record in caplog.records if "file_not_removed" in record.getMessage()]) == 1


def test_files_that_a_restored_study_names_are_kept_until_it_does_not_need_them(
    ledger: Ledger, store: FileStore, folder: Path, keeper: FileKeeper, tmp_path: Path
) -> None:
    # Given a study that keeps its best trial, and one ticket of it that waits with a checkpoint
    study = keeping_best(ledger, 1, n_trials=3)
    one, two, three = ledger.tickets(study)
    for ticket, value in ((one, 0.3), (two, 0.1)):
        lease = ledger.start(ticket)
        artifact = saved(ledger, store, lease, f"m{ticket}")
        ledger.finish(lease, Outcome(ending=Ending.COMPLETED, value=value, artifacts=(artifact,)))
    lease = ledger.start(three)
    saved(ledger, store, lease, "c1")
    ledger.attempts.keep_checkpoint(lease, Checkpoint(id="c1", attempt=1, size_bytes=2, sha256="ab"))
    ledger.finish(lease, KILLED, Disposition.RELEASE)

    # When it is restored by another name, where more trials keep theirs, and then ends
    backup(study, ledger.access, tmp_path / "backup.jsonl")
    restore(tmp_path / "backup.jsonl", ledger.access, name="copy")
    keep_best_of(ledger, "copy", 2)
    ledger.skip_delay(three)
    ledger.run(three, FAILED)
    keeper.keep_best()
    keeper.keep_checkpoints()
    keeper.remove_useless(grace_s=0.0)

    # Then what its copy names is still there, also what the original does not name any more
    assert kept(folder) == {f"m{one}", f"m{two}", "c1"}
    names = {number: [one.id for one in found] for number, found in ledger.access.store.artifacts("copy").items()}
    assert names == {0: [f"m{one}"], 1: [f"m{two}"]} and set(ledger.access.store.artifacts("digits")) == {1}

    # And it is removed when the copy does not need it either
    keep_best_of(ledger, "copy", 1)
    copy = ledger.studies.get("copy")
    waiting = ledger.tickets(copy)[2]
    ledger.skip_delay(waiting)
    ledger.run(waiting, FAILED)
    keeper.keep_best()
    keeper.keep_checkpoints()
    keeper.remove_useless(grace_s=0.0)
    assert kept(folder) == {f"m{two}"}


def keeping_best(ledger: Ledger, count: int, *, n_trials: int, name: str = "digits") -> StudyRecord:
    spec = {"name": name, "objective": "a.py:f", "search_space": {"x": ["uniform", 0.0, 1.0]}, "keep_best": count}
    spec["keep_checkpoints"] = 0
    optuna_id = ledger.access.store.create_study(name, "minimize")
    return ledger.studies.create(name, spec, queue="cpu", n_trials=n_trials, optuna_study_id=optuna_id)


def keep_best_of(ledger: Ledger, name: str, count: int) -> None:
    with ledger.database.transaction() as connection:
        connection.execute(
            text("update hn_studies set spec = jsonb_set(spec::jsonb, '{keep_best}', :n)::json where name = :name"),
            {"n": str(count), "name": name},
        )


def test_fault_of_one_study_stops_the_removal_for_no_other(ledger: Ledger, store: FileStore, folder: Path) -> None:
    for name in ("one", "broken", "other"):
        study = keeping_best(ledger, 1, n_trials=2, name=name)
        for number, ticket in enumerate(ledger.tickets(study)):
            lease = ledger.start(ticket)
            artifact = saved(ledger, store, lease, f"{name}-{number}")
            ledger.finish(lease, Outcome(ending=Ending.COMPLETED, value=-number, artifacts=(artifact,)))
    chosen: Any = Refusing(store, "broken-0", error=ZeroDivisionError)

    assert FileKeeper(chosen, ledger.access).keep_best() == 2
    assert kept(folder) == {"one-1", "broken-0", "broken-1", "other-1"}


def test_only_the_best_trials_keep_their_artifacts(
    ledger: Ledger, store: FileStore, folder: Path, keeper: FileKeeper
) -> None:
    # Given five trials with artifacts, two of which may keep them
    study = keeping_best(ledger, 2, n_trials=5)
    outcomes = [
        Outcome(ending=Ending.COMPLETED, value=0.3),
        Outcome(ending=Ending.COMPLETED, value=0.1),
        FAILED,
        Outcome(ending=Ending.COMPLETED, value=0.2),
        Outcome(ending=Ending.STOPPED, value=0.0, cause="rss", constraint=0.5),
    ]
    for number, (ticket, outcome) in enumerate(zip(ledger.tickets(study), outcomes, strict=True)):
        lease = ledger.start(ticket)
        artifact = saved(ledger, store, lease, f"m{number}")
        ledger.finish(lease, replace(outcome, artifacts=(artifact,)))

    # When the coordinator looks
    assert keeper.keep_best() == 3

    # Then they are the best two, for us and for Optuna, and it does not look again until another trial ends
    assert kept(folder) == {"m1", "m3"}
    assert set(ledger.access.store.artifacts("digits")) == {1, 3}
    attrs = [key for trial in ledger.optuna().get_trials() for key in trial.system_attrs if "artifacts:" in key]
    assert sorted(attrs) == ["artifacts:m1", "artifacts:m3"]
    assert StoredFiles(ledger.database).keeping_best() == {"digits": "2 of 5"}
    assert keeper.keep_best() == 0
    assert keeper.remove_useless(grace_s=0.0) == 3 and noted(ledger) == {"m1", "m3"}


def test_a_retry_of_a_trial_with_artifacts_does_not_name_them(ledger: Ledger, store: FileStore) -> None:
    study = ledger.study(1, max_attempts=3)
    (ticket,) = ledger.tickets(study)
    lease = ledger.start(ticket)
    artifact = saved(ledger, store, lease, "a1")
    ledger.finish(lease, replace(FAILED, artifacts=(artifact,)))

    from highnoon.shared.store.optuna_trials import inherited_by_retry

    assert "artifacts:a1" in ledger.trial(lease).system_attrs
    assert not [key for key in inherited_by_retry(ledger.trial(lease)) if key.startswith("artifacts:")]


def test_a_checkpoint_of_a_ticket_is_kept_by_the_ledger(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    ledger.attempts.keep_checkpoint(lease, Checkpoint(id="c1", attempt=1, size_bytes=2, sha256="ab"))
    with ledger.database.transaction() as connection:
        stored = connection.scalar(select(tickets.c.checkpoint).where(tickets.c.id == ticket))
    assert stored == {"id": "c1", "attempt": 1, "size_bytes": 2, "sha256": "ab"}
