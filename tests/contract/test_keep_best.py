"""Artifacts of the best trials only, in the ledger: which are removed, when, and what a round reads."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from sqlalchemy import text, update

from highnoon.coordinator.file_keeper import FileKeeper
from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.lease import Disposition
from highnoon.shared.domain.states import Ending, StudyState
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.file_store import FileStore
from highnoon.shared.store.backup import backup
from highnoon.shared.store.restore import restore
from highnoon.shared.store.schema import tickets
from highnoon.shared.store.stored_files import StoredFiles
from highnoon.shared.store.study_records import StudyRecord
from tests.contract.saved_files import Refusing, noted, saved, stored
from tests.ledger import FAILED, KILLED, Ledger, add_closed_tickets, rows_read


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
    assert stored(folder) == {f"m{one}", f"m{two}", "c1"}
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
    assert stored(folder) == {f"m{two}"}


def test_fault_of_one_study_stops_the_removal_for_no_other(ledger: Ledger, store: FileStore, folder: Path) -> None:
    for name in ("one", "broken", "other"):
        study = keeping_best(ledger, 1, n_trials=2, name=name)
        for number, ticket in enumerate(ledger.tickets(study)):
            lease = ledger.start(ticket)
            artifact = saved(ledger, store, lease, f"{name}-{number}")
            ledger.finish(lease, Outcome(ending=Ending.COMPLETED, value=-number, artifacts=(artifact,)))
    chosen: Any = Refusing(store, "broken-0", error=ZeroDivisionError)

    assert FileKeeper(chosen, ledger.access).keep_best() == 2
    assert stored(folder) == {"one-1", "broken-0", "broken-1", "other-1"}


def test_no_history_of_a_study_that_is_over_stays_in_memory(
    ledger: Ledger, store: FileStore, keeper: FileKeeper
) -> None:
    # Given studies that keep one artifact, and one checkpoint
    for name in ("one", "two"):
        study = keeping_best(ledger, 1, n_trials=2, name=name, keep_checkpoints=1)
        for number, ticket in enumerate(ledger.tickets(study)):
            lease = ledger.start(ticket)
            artifact = saved(ledger, store, lease, f"{name}-{number}")
            saved(ledger, store, lease, f"c-{name}-{number}")
            checkpoint = Checkpoint(id=f"c-{name}-{number}", attempt=1, size_bytes=2, sha256="ab")
            ledger.attempts.keep_checkpoint(lease, checkpoint)
            ledger.finish(lease, Outcome(ending=Ending.COMPLETED, value=-number, artifacts=(artifact,)))
        states = {"before": StudyState.RUNNING, "state": StudyState.FINISHED}
        assert ledger.control.finish(study.id, reason="n_trials", **states)

    def trials_in_memory() -> int:
        gc.collect()
        return sum(isinstance(one, FrozenTrial) for one in gc.get_objects())

    before = trials_in_memory()
    assert keeper.keep_best() == 2
    keeper.keep_checkpoints()

    assert trials_in_memory() == before


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
        Outcome(ending=Ending.STOPPED, value=0.0, cause="memory_limit", constraint=0.5),
    ]
    for number, (ticket, outcome) in enumerate(zip(ledger.tickets(study), outcomes, strict=True)):
        lease = ledger.start(ticket)
        artifact = saved(ledger, store, lease, f"m{number}")
        ledger.finish(lease, replace(outcome, artifacts=(artifact,)))

    # When the coordinator looks
    assert keeper.keep_best() == 3

    # Then they are the best two, for us and for Optuna, and it does not look again until another trial ends
    assert stored(folder) == {"m1", "m3"}
    assert set(ledger.access.store.artifacts("digits")) == {1, 3}
    attrs = [key for trial in ledger.optuna().get_trials() for key in trial.system_attrs if "artifacts:" in key]
    assert sorted(attrs) == ["artifacts:m1", "artifacts:m3"]
    tokens = StoredFiles(ledger.database).keeping_best()
    assert list(tokens) == ["digits"] and keeper.keep_best() == 0
    assert StoredFiles(ledger.database).keeping_best() == tokens
    assert keeper.remove_useless(grace_s=0.0) == 3 and noted(ledger) == {"m1", "m3"}


def test_artifacts_are_compared_again_when_a_ticket_closes_and_when_the_study_ends(ledger: Ledger) -> None:
    # Given a study whose newest closed ticket the coordinator has seen
    study = keeping_best(ledger, 1, n_trials=2)
    first, second = ledger.tickets(study)
    files = StoredFiles(ledger.database)
    assert files.keeping_best() == {}
    ledger.run(second)
    seen = [files.keeping_best()]

    # When a ticket appears that was closed before it, by a transaction that took longer
    ledger.run(first)
    with ledger.database.transaction() as connection:
        connection.execute(text("update hn_tickets set closed_at = closed_at - 60 where id = :id"), {"id": first})
    assert files.keeping_best() == seen[0]

    # Then it counts at the latest when the study has ended, and so does another number of trials that keep theirs
    assert ledger.control.finish(study.id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials")
    seen.append(files.keeping_best())
    keep_best_of(ledger, "digits", 2)
    seen.append(files.keeping_best())
    assert len({tokens["digits"] for tokens in seen}) == 3


def test_ticket_that_appears_behind_a_newer_one_is_compared_in_the_next_round(
    ledger: Ledger, store: FileStore, folder: Path, keeper: FileKeeper
) -> None:
    # Given a study that is paused after two trials: a round has found the newer one only
    first, second = ledger.tickets(study := keeping_best(ledger, 1, n_trials=3))[:2]

    def close(ticket: int, value: float, closed_at: float) -> None:
        lease = ledger.start(ticket)
        artifact = saved(ledger, store, lease, f"m{ticket}")
        ledger.finish(lease, Outcome(ending=Ending.COMPLETED, value=value, artifacts=(artifact,)))
        with ledger.database.transaction() as connection:
            connection.execute(update(tickets).where(tickets.c.id == ticket).values(closed_at=closed_at))

    close(second, 0.1, closed_at=1000.0)
    assert keeper.keep_best() == 0

    # When the other one, whose transaction took longer, is there
    close(first, 0.3, closed_at=999.0)
    assert ledger.studies.get(study.name).ended_at is None

    # Then its artifact is removed though the newest ticket is the same
    assert keeper.keep_best() == 1
    assert stored(folder) == {f"m{second}"}

    # And rounds read its trials only until nothing has changed for one of them
    keeper.keep_best()
    with rows_read(ledger.database, "hn_tickets") as read:
        assert keeper.keep_best() == 0
    assert len(read) == 1


def test_rounds_do_not_read_all_closed_tickets(ledger: Ledger, store: FileStore, keeper: FileKeeper) -> None:
    # Given studies with 50,000 closed tickets, few of which have a checkpoint
    for name, keep in (("large", {"keep_best": 2}), ("small", {})):
        study = ledger.study(n_trials=1, name=name, **keep)
        add_closed_tickets(ledger.database, study.id, 25_000, with_checkpoint=3)

    # When the coordinator asks which studies have something to remove
    files = StoredFiles(ledger.database)
    with rows_read(ledger.database, "hn_tickets") as read:
        assert list(files.keeping_best()) == ["large"]
        assert [(one.study, one.numbers) for one in files.keeping_checkpoints()] == [
            ("large", (1, 2, 3)),
            ("small", (1, 2, 3)),
        ]

    # Then each statement reads as few tickets as it returns
    assert len(read) == 2 and max(read) <= 6


def keeping_best(
    ledger: Ledger, count: int, *, n_trials: int, name: str = "digits", keep_checkpoints: int = 0
) -> StudyRecord:
    spec = {"name": name, "objective": "a.py:f", "search_space": {"x": ["uniform", 0.0, 1.0]}, "keep_best": count}
    spec["keep_checkpoints"] = keep_checkpoints
    optuna_id = ledger.access.store.create_study(name, "minimize")
    return ledger.studies.create(name, spec, queue="cpu", n_trials=n_trials, optuna_study_id=optuna_id)


def keep_best_of(ledger: Ledger, name: str, count: int) -> None:
    with ledger.database.transaction() as connection:
        connection.execute(
            text("update hn_studies set spec = jsonb_set(spec::jsonb, '{keep_best}', :n)::json where name = :name"),
            {"n": str(count), "name": name},
        )
