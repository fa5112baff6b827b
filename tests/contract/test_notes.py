"""Notes and tags, kept in Optuna's study: read again, audited, and as optuna-dashboard has its own."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from highnoon.shared.domain.errors import InvalidInput, StudyConflict, UserInputError
from highnoon.shared.domain.note import Note, NoteChange
from highnoon.shared.store.audit import AuditLog
from highnoon.shared.store.notes import NoteStore
from tests.ledger import Ledger


def system_attrs(ledger: Ledger) -> dict[str, object]:
    study = ledger.optuna()
    return study._storage.get_study_system_attrs(study._study_id)


def test_notes_of_studies_and_of_ended_trials(ledger: Ledger) -> None:
    study = ledger.study()
    lease = ledger.run(ledger.tickets(study)[0])
    store = NoteStore(ledger.database)
    assert store.of_study("digits") == {} and store.tags_of_studies() == {}

    store.change("digits", None, NoteChange(text="long " * 1000, tag=("baseline", "sgd")))
    store.change("digits", lease.trial_number, NoteChange(text="diverges\nlater"))
    store.change("digits", lease.trial_number, NoteChange(tag=("odd",)))
    store.change("digits", None, NoteChange(untag=("sgd",)))

    assert store.of_study("digits") == {
        None: Note(text="long " * 1000, tags=("baseline",)),
        lease.trial_number: Note(text="diverges\nlater", tags=("odd",)),
    }
    assert store.tags_of_studies() == {"digits": ("baseline",)}
    # As optuna-dashboard reads them: all pieces of the text, in their order, and a version.
    attrs = system_attrs(ledger)
    pieces = [key for key in attrs if key.startswith("dashboard:note_str:")]
    assert "".join(str(attrs[f"dashboard:note_str:{index}"]) for index in range(len(pieces))) == "long " * 1000
    assert attrs["dashboard:note_ver"] == 1 and attrs[f"dashboard:{lease.trial_id}:note_str:0"] == "diverges\nlater"
    entries = [entry for entry in AuditLog(ledger.database).entries(study="digits", limit=9) if entry.action == "note"]
    assert [entry.details["trial"] for entry in entries if entry.details] == [None, 0, 0, None]


def test_a_note_of_optuna_dashboard_is_read_and_replaced(ledger: Ledger) -> None:
    ledger.study()
    study = ledger.optuna()
    for key, value in {"note_ver": 7, "note_str:0": "by ", "note_str:1": "another", "note_str:2": ""}.items():
        study._storage.set_study_system_attr(study._study_id, f"dashboard:{key}", value)
    store = NoteStore(ledger.database)
    assert store.of_study("digits") == {None: Note(text="by another")}

    store.change("digits", None, NoteChange(text=""))

    assert store.of_study("digits") == {}
    assert {key: value for key, value in system_attrs(ledger).items() if key.startswith("dashboard:")} == {
        "dashboard:note_ver": 8
    }


def test_two_who_write_at_once_lose_nothing_of_each_other(ledger: Ledger) -> None:
    ledger.study()
    store = NoteStore(ledger.database)
    seen = store.change("digits", None, NoteChange(text="first", tag=("baseline",))).version

    # One replaces the tags alone, the other the text alone
    store.change("digits", None, NoteChange(tags=("baseline", "sgd")))
    store.change("digits", None, NoteChange(text="second"))
    assert store.of_study("digits") == {None: Note(text="second", tags=("baseline", "sgd"))}

    # Who replaces what they have not seen changes nothing
    with pytest.raises(StudyConflict, match="changed by another person meanwhile"):
        store.change("digits", None, NoteChange(text="mine", tags=()), seen=seen)
    now = store.of_study("digits")[None]
    assert (now.text, now.tags) == ("second", ("baseline", "sgd"))
    assert store.change("digits", None, NoteChange(text="mine", tags=("b",)), seen=now.version).tags == ("b",)


def test_tags_of_studies_are_read_without_the_notes(ledger: Ledger) -> None:
    lease = ledger.run(ledger.tickets(ledger.study())[0])
    store = NoteStore(ledger.database)
    store.change("digits", None, NoteChange(text="long " * 1000, tag=("baseline",)))
    store.change("digits", lease.trial_number, NoteChange(text="other", tag=("odd",)))
    read: list[int] = []

    def count(_connection: object, cursor: Any, *_: object) -> None:
        read.append(cursor.rowcount)

    event.listen(ledger.database.engine, "after_cursor_execute", count)
    assert store.tags_of_studies() == {"digits": ("baseline",)}
    assert sum(rows for rows in read if rows > 0) == 1


def test_what_cannot_be_written_is_refused(ledger: Ledger) -> None:
    ledger.study()
    with pytest.raises(UserInputError, match="study digits has no trial 7"):
        NoteStore(ledger.database).change("digits", 7, NoteChange(text="x"))
    for change, message in (
        ({"tags": ("a,b",)}, "without a comma"),
        ({"text": "x" * 10_001}, "at most 10,000 characters"),
        ({"tag": ("a,b",)}, "without a comma"),
        ({"tag": (" a",)}, "surrounding blanks"),
        ({}, "or a tag is needed"),
    ):
        with pytest.raises(InvalidInput, match=message):
            NoteChange(**change)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="would be 21: at most 20"):
        NoteStore(ledger.database).change("digits", None, NoteChange(tag=tuple(map(str, range(21)))))
