"""A study to a file and back, on real PostgreSQL: equal rows, in a database with other ids, and it goes on."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.errors import InvalidInput, StudyConflict
from highnoon.shared.domain.lease import Disposition, Lease, Progress
from highnoon.shared.domain.states import Ending, TicketState
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.store.audit import AuditLog
from highnoon.shared.store.backup import backup
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.environments import Environments
from highnoon.shared.store.restore import readable, restore
from highnoon.shared.store.schema import SCHEMA_VERSION, audit, metadata
from highnoon.shared.store.study_records import StudyRecord
from tests.conftest import empty_database
from tests.ledger import BERT, DONE, FAILED, KILLED, RELEASED, USED, Ledger, point

ENVIRONMENT = hashlib.sha256(b"environment").hexdigest()
BUNDLE = hashlib.sha256(b"code").hexdigest()
SPEC: dict[str, Any] = {
    "name": "digits",
    "objective": "train.py:objective",
    "search_space": {"x": ["uniform", 0.0, 1e9]},
    "n_trials": 9,
    "bundle": BUNDLE,
    "max_attempts": 2,
}
STOPPED = Outcome(
    ending=Ending.STOPPED, cause="memory_limit", message="too large", constraint=0.5, log_tail="ünïcödé", memory=USED
)


@pytest.fixture
def other(stack: Stack, _ledger_template: str) -> Iterator[Ledger]:
    """Another database, in which ids are higher already."""
    with empty_database(stack, template=_ledger_template) as url:
        ledger = Ledger(url, create=False)
        before = ledger.study(n_trials=7, name="before")
        ledger.run(ledger.tickets(before)[0])
        yield ledger
        ledger.close()


def created(ledger: Ledger, **changes: Any) -> StudyRecord:
    spec = {**SPEC, **changes}
    optuna_id = ledger.access.store.create_study("digits", "minimize")
    return ledger.studies.create("digits", spec, queue="cpu", n_trials=spec["n_trials"], optuna_study_id=optuna_id)


def varied(ledger: Ledger) -> StudyRecord:
    """A study with tickets in every state but running, and everything that a row may hold."""
    Bundles(ledger.database).put(BUNDLE, b"\x00code\xff", "signature")
    Environments(ledger.database).keep(ENVIRONMENT, {"python": "3.12.1", "packages": {"keras": "3.0"}})
    study = created(ledger)
    completed, stopped, failed, twice, lost, released, *_ = ledger.tickets(study)
    new = point(0.1, user_attrs={"note": 'a "quoted"\nline'}, system_attrs={"s": [1]})
    candidate = ledger.attempts.look(completed)
    assert candidate is not None
    lease = ledger.start_at(candidate, new=new, environment=ENVIRONMENT)
    assert isinstance(lease, Lease)
    reports = [Report(step=step, value=value) for step, value in enumerate((1.5, float("inf"), float("nan")))]
    history = {"accuracy": ((0, 0.5), (1, "nan"))}
    ledger.attempts.renew(lease, Progress(step=2, rss_bytes=2**40, metric_history=history), reports)
    ledger.finish(lease, DONE)
    ledger.run(stopped, STOPPED, BERT)
    ledger.run(failed, FAILED)
    ledger.finish(ledger.start(twice), KILLED, Disposition.RETRY)
    ledger.skip_delay(twice)
    ledger.finish(ledger.start(twice, BERT), Outcome(ending=Ending.COMPLETED, value=float("inf")))
    for _ in range(2):
        assert ledger.attempts.reap(lost, ledger.start(lost).attempt, message="gone", only_expired=False)
        ledger.skip_delay(lost)
    ledger.finish(ledger.start(released), RELEASED, Disposition.RELEASE)
    assert ledger.control.dispatch(study.id, 2)
    optuna_study = ledger.optuna()
    optuna_study.set_user_attr("owner", "anna")
    optuna_study.enqueue_trial({"x": 4.0})
    theirs = optuna_study.ask()
    optuna_study.tell(theirs, 3.25)
    optuna_study.enqueue_trial({"x": 5.0})
    return ledger.studies.get("digits")


def lines(path: Path) -> list[dict[str, Any]]:
    """All rows of a backup, without when it was made."""
    return [json.loads(line) for line in path.read_text().splitlines()][1:-1]


def test_a_restored_study_has_equal_rows_in_a_database_with_other_ids(
    ledger: Ledger, other: Ledger, tmp_path: Path
) -> None:
    study = varied(ledger)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"

    written = backup(study, ledger.access, first)
    read = restore(first, other.access)
    backup(other.studies.get("digits"), other.access, second)

    assert lines(first) == lines(second)
    assert {line["table"] for line in lines(first)} >= {table.name for table in metadata.sorted_tables} - {
        "hn_meta", "hn_workers", "hn_leader", "hn_audit", "hn_notifications", "hn_files",
    }  # fmt: skip
    assert (read.trials, read.attempts) == (written.trials, written.attempts) == (10, 8)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600 and sorted(tmp_path.iterdir()) == [first, second]
    before, after = ledger.studies.get("digits"), other.studies.get("digits")
    restored = other.access.store.view("digits").trials()[0]
    assert after.id != before.id and after.spec == before.spec
    assert other.studies.counts(after.id) == ledger.studies.counts(before.id)
    assert Bundles(other.database).archive(BUNDLE) == b"\x00code\xff"
    assert Environments(other.database).find(ENVIRONMENT) == {"python": "3.12.1", "packages": {"keras": "3.0"}}
    assert [one.environment for one in other.studies.attempts(after.id)].count(ENVIRONMENT) == 1
    assert [point[1] for point in other.access.metric_history("digits", restored, after)["accuracy"]][:1] == [0.5]
    for old, new in zip(ledger.optuna().get_trials(), other.optuna().get_trials(), strict=True):
        assert {**new.user_attrs, "highnoon:ticket": 0} == {**old.user_attrs, "highnoon:ticket": 0}
        assert (new.number, new.state, new.params, new.values, new.datetime_start, new.datetime_complete) == (
            old.number, old.state, old.params, old.values, old.datetime_start, old.datetime_complete,
        )  # fmt: skip
        assert repr(new.intermediate_values) == repr(old.intermediate_values)
        assert new.system_attrs == old.system_attrs
    assert other.optuna().user_attrs["owner"] == "anna"
    own = {trial.user_attrs.get("highnoon:ticket") for trial in other.optuna().get_trials()} - {None}
    assert own <= set(other.tickets(after))
    assert [entry.action for entry in AuditLog(ledger.database).entries(study="digits", limit=9)] == [
        "create",
        "backup",
    ]
    assert [entry.action for entry in AuditLog(other.database).entries(study="digits", limit=9)] == [
        "restore",
        "backup",
    ]


def test_a_restored_study_goes_on(ledger: Ledger, other: Ledger, tmp_path: Path) -> None:
    varied(ledger)
    path = tmp_path / "digits.jsonl"
    backup(ledger.studies.get("digits"), ledger.access, path)

    restore(path, other.access)

    study = other.studies.get("digits")
    for ticket in other.tickets(study):
        if other.state(ticket) in (TicketState.WAITING, TicketState.QUEUED):
            other.skip_delay(ticket)
            other.run(ticket)
    counts = other.studies.counts(study.id)
    assert counts.closed == counts.total == 9
    # The retried one repeats its parameters, and no trial of the old ones ended twice
    assert not other.optuna().get_trials(states=(TrialState.RUNNING,))
    assert other.studies.add_trials(study.id, 1, at_most=10) == 1
    assert other.start(other.tickets(study)[-1]).trial_number == len(other.optuna().get_trials()) - 1


def test_what_ran_is_handed_back_and_charged_nothing(ledger: Ledger, other: Ledger, tmp_path: Path) -> None:
    study = created(ledger, n_trials=2, max_attempts=1)
    running, cancelled = ledger.tickets(study)
    ledger.start(running, new=point(0.75))
    ledger.start(cancelled)
    path = tmp_path / "digits.jsonl"
    backup(study, ledger.access, path)

    restore(path, other.access)

    restored = other.studies.get("digits")
    assert [other.state(ticket) for ticket in other.tickets(restored)] == ["waiting", "waiting"]
    assert [trial.state for trial in other.optuna().get_trials()] == [TrialState.FAIL] * 2
    candidate = other.look(other.tickets(restored)[0])
    assert (candidate.attempt, candidate.infrastructure_failures) == (1, 0)
    assert candidate.before is not None and candidate.before.params == {"x": 0.75}
    assert [(one.ending, one.cause) for one in other.studies.attempts(restored.id)] == [
        (Ending.RELEASED, "restore")
    ] * 2
    # Nothing happened to the one that runs
    assert ledger.state(running) == "running"


def test_a_name_that_exists_is_refused_and_another_one_is_taken(ledger: Ledger, tmp_path: Path) -> None:
    study = varied(ledger)
    path = tmp_path / "digits.jsonl"
    backup(study, ledger.access, path)
    before = everything(ledger)

    with pytest.raises(StudyConflict, match=r"'digits' exists.*--as NAME"):
        restore(path, ledger.access)
    optuna.create_study(study_name="of-optuna", storage=ledger.database.url)
    with pytest.raises(StudyConflict, match="'of-optuna' exists"):
        restore(path, ledger.access, name="of-optuna")
    with pytest.raises(InvalidInput, match="name"):
        restore(path, ledger.access, name="../digits")
    optuna.delete_study(study_name="of-optuna", storage=ledger.database.url)
    assert everything(ledger) == before

    restore(path, ledger.access, name="digits-2")

    copy = ledger.studies.get("digits-2")
    assert copy.spec == {**study.spec, "name": "digits-2"}
    assert len(ledger.optuna("digits-2").get_trials()) == 10
    again = tmp_path / "again.jsonl"
    backup(study, ledger.access, again)
    assert lines(again) == lines(path), "the first one stays as it was"


def damage(path: Path) -> Iterator[tuple[str, bytes, str]]:
    """What it is, the file, and what is wrong with it."""
    whole = path.read_bytes()
    written = whole.splitlines(keepends=True)
    yield "empty", b"", "is empty"
    yield "last line missing", b"".join(written[:-1]), "is cut off"
    yield "cut within a line", whole[: len(whole) // 2], "no JSON|cut off"
    yield "cut before the last newline", whole[:-1], "cut off"
    yield "line missing", b"".join(written[:5] + written[6:]), "was changed"
    yield "line twice", b"".join(written[:5] + written[4:]), "was changed"
    yield "a value changed", whole.replace(b'"COMPLETE"', b'"PRUNED"', 1), "was changed"
    yield "two files in one", whole + whole, "goes on after its end"
    yield "another format", whole.replace(b'"highnoon_backup": 1', b'"highnoon_backup": 2', 1), "has format 2"
    yield (
        "of a newer ledger",
        resigned([written[0].replace(b'"ledger": %d' % SCHEMA_VERSION, b'"ledger": 99'), *written[1:-1]]),
        "version 99",
    )
    yield "a study file", b'name = "digits"\n', "no JSON"
    yield "another JSON", b'{"name": "digits"}\n', "is no backup of a study"
    yield "binary", b"\x80\x04\x95\x00", "no JSON"
    # Files that were made to look right
    yield "no study", resigned(written[:1]), "has no study"
    yield (
        "unknown table",
        resigned([*written[:-1], b'{"table": "pg_authid", "row": {"rolname": "eve"}}\n']),
        "not known",
    )
    yield "unknown column", resigned(edited(written, "hn_studies", seen=1)), "has no column 'seen'"
    yield "another type", resigned(edited(written, "hn_tickets", ordinal="one")), "cannot hold"
    yield "unknown state", resigned(edited(written, "hn_tickets", state="gone")), "cannot be stored"
    yield "no trial of it", resigned(edited(written, "trial_params", trial=99)), "not in the file"
    yield "too large", resigned(edited(written, "hn_tickets", attempt=2**31)), "cannot hold"
    yield "no float", resigned(edited(written, "trial_values", value=10**400)), "cannot hold"
    for named in (b"di\\u0000gits", b"\\ud800", b"a/b", b"d" * 101):
        header = written[0].replace(b'"digits"', b'"' + named + b'"', 1)
        yield f"name {named!r}", resigned([header, *written[1:-1]]), "a study whose name must be"
    yield "no specification", resigned(edited(written, "hn_studies", spec={"name": "digits"})), "objective"
    yield "two studies", resigned([*written[:-1], of_table(written, "hn_studies")]), "more than one study"


def of_table(written: list[bytes], table: str) -> bytes:
    return next(line for line in written if f'"table": "{table}"'.encode() in line)


def edited(written: list[bytes], table: str, **changes: Any) -> list[bytes]:
    """The lines without the end, the first row of a table with other values."""
    target = of_table(written, table)
    row = json.loads(target)
    row["row"] |= changes
    return [json.dumps(row).encode() + b"\n" if line is target else line for line in written[:-1]]


def resigned(written: list[bytes]) -> bytes:
    """With an end that fits."""
    content = b"".join(written)
    end = {"end": len(written), "sha256": hashlib.sha256(content).hexdigest()}
    return content + json.dumps(end).encode() + b"\n"


def test_a_file_that_is_damaged_or_foreign_changes_nothing(ledger: Ledger, other: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "digits.jsonl"
    backup(varied(ledger), ledger.access, path)
    before = everything(other)
    bad = tmp_path / "bad.jsonl"
    for what, content, why in damage(path):
        bad.write_bytes(content)
        with pytest.raises(InvalidInput, match=why):
            restore(bad, other.access)
            pytest.fail(f"{what} was restored")
        assert everything(other) == before, what
    assert readable(path).study == "digits"
    with pytest.raises(InvalidInput, match="name: must be"):
        restore(path, other.access, name="di\0gits")
    restore(path, other.access)


def test_a_backup_that_cannot_be_written_leaves_the_one_before(ledger: Ledger, tmp_path: Path) -> None:
    study = varied(ledger)
    path = tmp_path / "digits.jsonl"
    path.write_text("the one before")
    optuna.delete_study(study_name="digits", storage=ledger.database.url)

    with pytest.raises(StudyConflict, match="deleted in Optuna"):
        backup(study, ledger.access, path)
    with pytest.raises(OSError):
        backup(study, ledger.access, tmp_path / "no folder" / "digits.jsonl")

    assert path.read_text() == "the one before" and list(tmp_path.iterdir()) == [path]


def everything(ledger: Ledger) -> dict[str, list[Any]]:
    """All rows of the ledger and of Optuna, without the audit."""
    with ledger.database.transaction() as connection:
        names = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return {
            name: list(connection.scalars(text(f"SELECT CAST(rows AS text) FROM {name} rows ORDER BY 1")))
            for name in names
            if name != audit.name
        }
