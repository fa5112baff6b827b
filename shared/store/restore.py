"""One study from a file of `backup`: a transaction that makes it with all that belongs to it, or changes nothing.

What ran when the backup was made is handed back, uncharged.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, insert, select, text
from sqlalchemy.dialects.postgresql import insert as insert_or_not
from sqlalchemy.exc import DataError, IntegrityError

from highnoon.shared.domain.errors import InvalidInput, StudyConflict
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.study_checks import name_flaw
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store import optuna_tables as optuna
from highnoon.shared.store.access import Access
from highnoon.shared.store.audit import record
from highnoon.shared.store.backup import LONGEST_S, NAMED_BY_CONTENT, OF_OPTUNAS_STUDY, OF_OPTUNAS_TRIAL, ORDER, Copied
from highnoon.shared.store.backup_file import Header, damaged, decoded, rows, verified
from highnoon.shared.store.connections import allow_longer
from highnoon.shared.store.outages import first_line
from highnoon.shared.store.schema import SCHEMA_VERSION, attempts, studies, tickets
from highnoon.shared.store.trial_results import json_text, result_json, trial_result

_AT_ONCE = 1000

_HAND_BACK = text(
    "select hn_finish_attempt_1(id, attempt, :token, 'release', 0, cast(:outcome as json), cast(:result as json), '[]')"
    " from hn_tickets where study_id = :study and state = 'running'"
)


def readable(path: Path) -> Header:
    """The header of a whole backup that this version can restore. Raises InvalidInput; needs no database."""
    header = verified(path)
    if header.ledger_version > SCHEMA_VERSION:
        raise damaged(path, f"is of ledger version {header.ledger_version}; this HighNoon has {SCHEMA_VERSION}", 1)
    return header


def restore(path: Path, access: Access, *, name: str | None = None) -> Copied:
    """Makes the study of a file that is `readable`, called `name` where that is given.

    Raises StudyConflict where a study of that name exists, InvalidInput for rows that cannot be.
    """
    header = readable(path)
    name = header.study if name is None else name
    if flaw := name_flaw(name):
        raise InvalidInput.of("restore", "name", flaw, value=name)
    with access.database.transaction() as connection:
        allow_longer(connection, LONGEST_S)
        try:
            copy = _Restoring(connection, path, name)
            for number, table, batch in _batches(path):
                copy.add(number, table, batch)
        except (IntegrityError, DataError) as error:
            raise damaged(path, f"has rows that cannot be stored ({first_line(error)})") from None
        copy.hand_back()
        record(connection, "restore", study=name, of=header.study, made_at=header.made_at)
    return Copied(study=name, trials=len(copy.trial_ids), attempts=copy.counts[attempts.name], made_at=header.made_at)


def _batches(path: Path) -> Iterator[tuple[int, str, list[dict[str, Any]]]]:
    """Rows of one table that follow one another, and the line that the first of them is in."""
    for table, group in groupby(rows(path), key=itemgetter(1)):
        while batch := list(islice(group, _AT_ONCE)):
            yield batch[0][0], table, [row for _, _, row in batch]


class _Restoring:
    """The rows of one file on their way into a database, with the ids that they get there."""

    def __init__(self, connection: Connection, path: Path, name: str) -> None:
        self._connection, self._path, self.name = connection, path, name
        self._tables = {table.name: table for table in ORDER}
        self.counts = dict.fromkeys(self._tables, 0)
        self.trial_ids: dict[int, int] = {}
        self._ticket_ids: dict[int, int] = {}
        self._study_id = 0
        known = select(studies.c.id).where(studies.c.name == name)
        optunas = select(optuna.studies.c.study_id).where(optuna.studies.c.study_name == name)
        if connection.scalar(known) is not None or connection.scalar(optunas) is not None:
            raise StudyConflict(f"a study named {name!r} exists: restore this one by another name, with --as NAME")
        try:
            self._optuna_id = self._inserted(optuna.studies, {"study_name": name})
        except IntegrityError:
            raise StudyConflict(f"a study named {name!r} has just been made") from None

    def add(self, line: int, name: str, batch: list[dict[str, Any]]) -> None:
        """Rows of one table, the first of them in that line of the file."""
        table = self._tables.get(name)
        if table is None:
            raise damaged(self._path, f"has rows of a table that is not known, {name!r}", line)
        self.counts[name] += len(batch)
        for number, row in enumerate(batch, line):
            try:
                batch[number - line] = self._with_ids(table, row)
            except (ValueError, TypeError) as error:
                raise damaged(self._path, f"has a row that cannot be stored ({error})", number) from None
        if table is studies:
            if len(batch) != 1 or self._study_id:
                raise damaged(self._path, "has more than one study", line)
            self._study_id = self._inserted(studies, batch[0])
            return
        for _, alike in groupby(batch, key=list):
            self._insert(table, list(alike))
        if table is optuna.trials:
            numbers = optuna.trials.c.number, optuna.trials.c.trial_id
            self.trial_ids |= self._ids(*numbers, optuna.trials.c.study_id == self._optuna_id, batch)
        elif table is tickets:
            ordinals = tickets.c.ordinal, tickets.c.id
            self._ticket_ids |= self._ids(*ordinals, tickets.c.study_id == self._study_id, batch)

    def hand_back(self) -> None:
        """What ran when the backup was made runs nowhere here: it waits again, and is charged nothing."""
        if not self._study_id:
            raise damaged(self._path, "has no study")
        outcome = Outcome(ending=Ending.RELEASED, cause=Cause.RESTORE, message="its study was restored from a backup")
        self._connection.execute(
            _HAND_BACK,
            {
                "study": self._study_id,
                "token": uuid.uuid4().hex,
                "outcome": json_text(outcome.to_json()),
                "result": result_json(trial_result(outcome)),
            },
        )

    def _with_ids(self, table: Table, row: dict[str, Any]) -> dict[str, Any]:
        trial, ticket = row.pop("trial", None), row.pop("ticket", None)
        values = decoded(table, row)
        if table is optuna.study_system_attrs and trial is not None:
            program, _, rest = str(values.get("key")).partition(":")
            values["key"] = f"{program}:{_known(self.trial_ids, 'trial', trial)}:{rest}"
        if table in OF_OPTUNAS_STUDY or table is optuna.trials:
            return {**values, "study_id": self._optuna_id}
        if table in OF_OPTUNAS_TRIAL:
            if ticket is not None:
                values["value_json"] = str(_known(self._ticket_ids, "ticket", ticket))
            return {**values, "trial_id": _known(self.trial_ids, "trial", trial)}
        if table is studies:
            spec = {**values.get("spec", {}), "name": self.name}
            StudySpec.from_json({key: value for key, value in spec.items() if key in StudySpec.model_fields})
            return {**values, "spec": spec, "name": self.name, "optuna_study_id": self._optuna_id}
        if table is tickets:
            trial_id = None if trial is None else _known(self.trial_ids, "trial", trial)
            return {**values, "study_id": self._study_id, "trial_id": trial_id}
        return (
            values if table in NAMED_BY_CONTENT else {**values, "ticket_id": _known(self._ticket_ids, "ticket", ticket)}
        )

    def _insert(self, table: Table, batch: list[dict[str, Any]]) -> None:
        if table in NAMED_BY_CONTENT:
            self._connection.execute(insert_or_not(table).on_conflict_do_nothing(), batch)
        else:
            self._connection.execute(insert(table), batch)

    def _inserted(self, table: Table, row: dict[str, Any]) -> int:
        (key,) = table.primary_key.columns
        return int(self._connection.scalar(insert(table).values(**row).returning(key)) or 0)

    def _ids(
        self, key: Column[Any], identity: Column[Any], of_study: ColumnElement[bool], batch: list[dict[str, Any]]
    ) -> dict[int, int]:
        """The ids that rows got, by what the file calls them."""
        own = select(key, identity).where(of_study, key.in_([row.get(key.name) for row in batch]))
        return {row[0]: row[1] for row in self._connection.execute(own)}


def _known(ids: Mapping[int, int], what: str, name: Any) -> int:
    """Raises ValueError for what came in no line before."""
    if not isinstance(name, int) or name not in ids:
        raise ValueError(f"it belongs to {what} {name!r}, which is not in the file")
    return ids[name]
