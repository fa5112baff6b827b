"""Notes and tags by Optuna's own interface, for studies that no coordinator runs: in memory or in any database.

They are where `notes` has those of a cluster's studies, and where optuna-dashboard has its texts.
"""

from __future__ import annotations

from typing import Any

from optuna.storages import BaseStorage

from highnoon.shared.domain.errors import StudyConflict, UserInputError
from highnoon.shared.domain.note import Note, NoteChange, Notes
from highnoon.shared.store.notes import CHANGED_MEANWHILE, CHUNK, KEY, note_of


class StudyNotes:
    """Of one study. Raises what the storage raises."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id

    def read(self) -> Notes:
        """Its own and those of its trials."""
        attrs = self._attrs()
        if not attrs:
            return {}
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False) if set(attrs) - {None} else ()
        numbers: dict[int | None, int | None] = {None: None, **{one._trial_id: one.number for one in trials}}
        found = {numbers[key]: note_of(kept) for key, kept in attrs.items() if key in numbers}
        return {number: note for number, note in found.items() if note}

    def change(self, number: int | None, change: NoteChange, *, seen: str | None = None) -> Note:
        """Of the study, or of its trial of that number. Returns the note afterwards. Raises UserInputError.

        With `seen`, the version that the change was made for, raises StudyConflict where it is another one by now. This
        interface has no transaction: what others write in the same milliseconds is not noticed.
        """
        trial_id = None if number is None else self._trial_id(number)
        before = self._attrs().get(trial_id, {})
        if seen not in (None, note_of(before).version):
            raise StudyConflict(CHANGED_MEANWHILE)
        note = change.of(note_of(before))
        place = "" if trial_id is None else f"{trial_id}:"
        if change.text is not None:
            chunks = [note.text[start : start + CHUNK] for start in range(0, len(note.text), CHUNK)]
            # An attribute cannot be removed by this interface: as optuna-dashboard, older chunks become empty.
            chunks += [""] * (sum(key.startswith("note_str:") for key in before) - len(chunks))
            for index, chunk in enumerate(chunks):
                self._set(f"dashboard:{place}note_str:{index}", chunk)
            self._set(f"dashboard:{place}note_ver", int(before.get("note_ver") or 0) + 1)
        if change.tag or change.untag:
            self._set(f"highnoon:{place}tags", list(note.tags))
        return note

    def _attrs(self) -> dict[int | None, dict[str, Any]]:
        """By trial id."""
        found: dict[int | None, dict[str, Any]] = {}
        for name, value in self._storage.get_study_system_attrs(self._study_id).items():
            key = KEY.fullmatch(name)
            if key is not None:
                found.setdefault(int(key[1]) if key[1] else None, {})[key[2]] = value
        return found

    def _trial_id(self, number: int) -> int:
        try:
            return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        except KeyError:
            raise UserInputError(f"the study has no trial {number!r}") from None

    def _set(self, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(self._study_id, key, value)
