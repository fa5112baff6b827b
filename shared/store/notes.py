"""Notes and tags of studies and trials, as attributes of Optuna's study: also a trial that has ended may get them.

The text is where optuna-dashboard has it, so that both show and change the same notes; tags are our own. A trial is
named by its id there.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sqlalchemy import Connection, text

from highnoon.shared.domain.errors import StudyConflict, UnknownStudy, UserInputError
from highnoon.shared.domain.note import Note, NoteChange, Notes
from highnoon.shared.store.audit import record
from highnoon.shared.store.database import Database

CHUNK = 2045
"""What optuna-dashboard puts into one attribute."""

CHANGED_MEANWHILE = (
    "the note or its tags were changed by another person meanwhile: read them again and repeat your change"
)

KEY = re.compile(r"(?:dashboard|highnoon):(?:(\d+):)?(note_ver|note_str:\d+|tags)")

_READ = text(
    "select a.key, a.value_json from study_system_attributes a join studies s using (study_id)"
    " where s.study_name = :study and (a.key like 'dashboard:%note_%' or a.key like 'highnoon:%tags')"
)
_TAGS = text(
    "select s.study_name, a.value_json from study_system_attributes a join studies s using (study_id)"
    " where a.key = 'highnoon:tags'"
)
_NUMBERS = text(
    "select trial_id, number from trials join studies using (study_id)"
    " where study_name = :study and trial_id = any(:ids)"
)
_LOCK = text("select study_id from studies where study_name = :study for update")
_TRIAL = text("select trial_id from trials where study_id = :id and number = :number")
_DROP = text("delete from study_system_attributes where study_id = :id and key like :prefix")
_WRITE = text(
    "insert into study_system_attributes (study_id, key, value_json) values (:id, :key, :value)"
    " on conflict (study_id, key) do update set value_json = excluded.value_json"
)

_Attrs = dict[int | None, dict[str, Any]]


class NoteStore:
    """Raises ServiceUnavailable. Of another database than PostgreSQL only the tags of studies are read."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of_study(self, study: str) -> Notes:
        """The study's own note and its trials' notes."""
        if self._db.engine.dialect.name != "postgresql":
            return {}
        with self._db.transaction() as connection:
            attrs = _attrs_of(connection, study)
            ids = [trial_id for trial_id in attrs if trial_id is not None]
            rows = connection.execute(_NUMBERS, {"study": study, "ids": ids}) if ids else ()
            numbers: dict[int | None, int | None] = {None: None, **{row.trial_id: row.number for row in rows}}
        found = {numbers[key]: note_of(kept) for key, kept in attrs.items() if key in numbers}
        return {number: note for number, note in found.items() if note}

    def tags_of_studies(self) -> dict[str, tuple[str, ...]]:
        """The tags of each study that has some, in any database of Optuna's."""
        found = {row.study_name: _tags(json.loads(row.value_json)) for row in self._db.rows(_TAGS)}
        return {name: tags for name, tags in found.items() if tags}

    def change(self, study: str, number: int | None, change: NoteChange, *, seen: str | None = None) -> Note:
        """Of the study, or of its trial of that number. Returns the note afterwards. Raises UserInputError.

        With `seen`, the version that the change was made for, raises StudyConflict where it is another one by now.
        """
        with self._db.transaction() as connection:
            study_id = connection.scalar(_LOCK, {"study": study})
            if study_id is None:
                raise UnknownStudy(f"no study {study!r} in Optuna's tables: it was deleted there")
            trial_id = None
            if number is not None:
                trial_id = connection.scalar(_TRIAL, {"id": study_id, "number": number})
                if trial_id is None:
                    raise UserInputError(f"study {study} has no trial {number}")
            attrs = _attrs_of(connection, study).get(trial_id, {})
            before = note_of(attrs)
            if seen not in (None, before.version):
                raise StudyConflict(CHANGED_MEANWHILE)
            note = change.of(before)
            if note == before:
                return note
            place = "" if trial_id is None else f"{trial_id}:"
            if note.text != before.text:
                connection.execute(_DROP, {"id": study_id, "prefix": f"dashboard:{place}note_str:%"})
                chunks = [note.text[start : start + CHUNK] for start in range(0, len(note.text), CHUNK)]
                written = {f"note_str:{index}": chunk for index, chunk in enumerate(chunks)}
                written["note_ver"] = int(attrs.get("note_ver") or 0) + 1  # type: ignore[assignment]
                for key, value in written.items():
                    _write(connection, study_id, f"dashboard:{place}{key}", value)
            if note.tags != before.tags:
                _write(connection, study_id, f"highnoon:{place}tags", note.tags)
            record(connection, "note", study=study, trial=number, tags=list(note.tags), text=note.text[:200])
        return note


def _attrs_of(connection: Connection, study: str) -> _Attrs:
    """By trial id; the study's own under None."""
    found: _Attrs = {}
    for row in connection.execute(_READ, {"study": study}):
        key = KEY.fullmatch(row.key)
        if key is not None:
            trial_id = int(key[1]) if key[1] else None
            found.setdefault(trial_id, {})[key[2]] = json.loads(row.value_json)
    return found


def _write(connection: Connection, study_id: int | None, key: str, value: object) -> None:
    connection.execute(_WRITE, {"id": study_id, "key": key, "value": json.dumps(value)})


def note_of(attrs: dict[str, Any]) -> Note:
    """What another program has written wrongly is left out."""
    chunks = sorted((int(key.partition(":")[2]), value) for key, value in attrs.items() if key.startswith("note_str"))
    return Note(text="".join(str(value) for _, value in chunks), tags=_tags(attrs.get("tags")))


def _tags(stored: object) -> tuple[str, ...]:
    return tuple(map(str, stored)) if isinstance(stored, list) else ()
