"""Artifacts and checkpoints in the ledger: they appear with the outcome, and nothing that does not count is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from sqlalchemy import select

from highnoon.coordinator.file_keeper import FileKeeper
from highnoon.shared.domain.artifact import Artifact, Checkpoint
from highnoon.shared.domain.errors import LeaseLost
from highnoon.shared.domain.lease import Disposition
from highnoon.shared.runtime.file_store import FileStore
from highnoon.shared.store.schema import tickets
from tests.contract.saved_files import Refusing, noted, saved, stored
from tests.ledger import BERT, DONE, FAILED, KILLED, Ledger


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
    assert stored(folder) == noted(ledger) == {"c2", "model"}

    # And once the trial is over, what it names
    ledger.finish(held, replace(DONE, artifacts=(Artifact.of_file("model", "m", size_bytes=5, sha256=""),)))
    keeper.keep_checkpoints()
    assert keeper.remove_useless(grace_s=0.0) == 1
    assert stored(folder) == noted(ledger) == {"model"}

    # And nothing of a study that was deleted
    optuna.delete_study(study_name="digits", storage=ledger.database.url)
    assert keeper.remove_useless(grace_s=0.0) == 1
    assert stored(folder) == noted(ledger) == set()


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
    assert stored(folder) == noted(ledger) == {"a1"}
    for _ in range(4):
        assert keeper.remove_useless(grace_s=0.0) == 0
    assert seen.tried.count("a1") > 1, "it is tried again"
    assert len([record for record in caplog.records if "file_not_removed" in record.getMessage()]) == 1


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
