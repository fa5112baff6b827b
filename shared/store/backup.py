"""One study to one file: its rows in the ledger, in Optuna's tables, and the bundle that it names.

A backup is one snapshot of the database: the study may run meanwhile. `restore` reads the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, Table, select, text

from highnoon.shared.domain.errors import StudyConflict
from highnoon.shared.domain.states import TICKET
from highnoon.shared.runtime.whole_file import whole_file
from highnoon.shared.store import optuna_tables as optuna
from highnoon.shared.store.access import Access
from highnoon.shared.store.audit import record
from highnoon.shared.store.backup_file import BackupWriter, Header, encoded
from highnoon.shared.store.connections import allow_longer
from highnoon.shared.store.schema import SCHEMA_VERSION, attempts, bundles, environments, studies, tickets
from highnoon.shared.store.study_records import StudyRecord

LONGEST_S = 1800.0
_AT_ONCE = 1000

OF_OPTUNAS_STUDY = (optuna.directions, optuna.study_attrs, optuna.study_system_attrs)
OF_OPTUNAS_TRIAL = (
    optuna.params,
    optuna.values,
    optuna.reports,
    optuna.user_attrs,
    optuna.system_attrs,
    optuna.heartbeats,
)
NAMED_BY_CONTENT = (bundles, environments)
"""Rows that several studies may share, and that a restore leaves alone where they are there already."""

ORDER = (*NAMED_BY_CONTENT, *OF_OPTUNAS_STUDY, optuna.trials, studies, tickets, *OF_OPTUNAS_TRIAL, attempts)
"""Each after what it refers to. Optuna's study itself has a name and an id, and no row in the file."""

_BESIDE_A_TRIAL = re.compile(r"(dashboard|highnoon):(\d+):(.+)")
"""The study's attributes that are a trial's notes and tags; the trial is named by its id, see `notes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a backup wrote, or a restore."""

    study: str
    trials: int
    attempts: int
    made_at: str


def backup(study: StudyRecord, access: Access, path: Path) -> Copied:
    """Writes the study as it is now to `path`, replacing a file of that name. Raises StudyConflict, OSError."""
    counts = dict.fromkeys(ORDER, 0)
    with access.database.transaction() as connection, whole_file(path) as file:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        allow_longer(connection, LONGEST_S)
        optuna_id = connection.scalar(
            select(optuna.studies.c.study_id).where(optuna.studies.c.study_name == study.name)
        )
        if optuna_id is None:
            raise StudyConflict(f"study {study.name!r} was deleted in Optuna: its trials are gone")
        header = Header(
            study=study.name,
            ledger_version=SCHEMA_VERSION,
            made_at=datetime.now(timezone.utc).isoformat(" ", "seconds"),
        )
        writer = BackupWriter(file, header)
        for table, row in _StudyRows(connection, study, optuna_id).all():
            writer.row(table.name, row)
            counts[table] += 1
        writer.end()
    with access.database.transaction() as connection:
        record(connection, "backup", study=study.name, trials=counts[optuna.trials])
    return Copied(study=study.name, trials=counts[optuna.trials], attempts=counts[attempts], made_at=header.made_at)


class _StudyRows:
    """Every row of one study with the name of its table, as the file has it: ids of this database are left out.

    Rows that belong to a trial or a ticket have its number or ordinal instead.
    """

    def __init__(self, connection: Connection, study: StudyRecord, optuna_id: int) -> None:
        self._connection, self._study, self._optuna_id = connection, study, optuna_id
        self._own_tickets = select(tickets.c.id).where(tickets.c.study_id == study.id)
        self._numbers: dict[int, int] = {}
        """Of Optuna's trials, by id."""
        self._ordinals: dict[int, int] = {}
        """Of tickets, by id."""
        self._beside_trials: list[tuple[int, dict[str, Any]]] = []
        """Notes and tags of trials, which Optuna has as attributes of the study."""

    def all(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        """In an order in which they can be inserted: each after what it refers to."""
        yield from self._bundle()
        yield from self._environments()
        yield from self._study_in_optuna()
        yield from self._trials()
        yield from self._notes_of_trials()
        yield from self._study_in_ledger()
        yield from self._tickets()
        yield from self._details_of_trials()
        yield from self._attempts()

    def _bundle(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        for row in self._read(select(bundles).where(bundles.c.digest == self._study.spec.get("bundle"))):
            yield bundles, encoded(bundles, row, without=())

    def _environments(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        own = select(attempts.c.environment).where(attempts.c.ticket_id.in_(self._own_tickets))
        for row in self._read(_ordered(environments).where(environments.c.digest.in_(own))):
            yield environments, encoded(environments, row, without=())

    def _study_in_optuna(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        for table in OF_OPTUNAS_STUDY:
            for row in self._read(_ordered(table).where(table.c.study_id == self._optuna_id)):
                written = encoded(table, row, without=_ids(table))
                beside = _BESIDE_A_TRIAL.fullmatch(row["key"]) if table is optuna.study_system_attrs else None
                if beside is None:
                    yield table, written
                else:
                    self._beside_trials.append((int(beside[2]), {**written, "key": f"{beside[1]}:{beside[3]}"}))

    def _trials(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        for row in self._read(_ordered(optuna.trials).where(optuna.trials.c.study_id == self._optuna_id)):
            self._numbers[row["trial_id"]] = row["number"]
            yield optuna.trials, encoded(optuna.trials, row, without=_ids(optuna.trials))

    def _notes_of_trials(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        for trial_id, written in self._beside_trials:
            if trial_id in self._numbers:
                yield optuna.study_system_attrs, {**written, "trial": self._numbers[trial_id]}

    def _study_in_ledger(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        for row in self._read(select(studies).where(studies.c.id == self._study.id)):
            yield studies, encoded(studies, row, without=("id", "name", "optuna_study_id"))

    def _tickets(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        for row in self._read(_ordered(tickets).where(tickets.c.study_id == self._study.id)):
            self._ordinals[row["id"]] = row["ordinal"]
            ticket = encoded(tickets, row, without=("id", "study_id", "trial_id"))
            yield tickets, {**ticket, "trial": self._numbers.get(row["trial_id"])}

    def _details_of_trials(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        own = select(optuna.trials.c.trial_id).where(optuna.trials.c.study_id == self._optuna_id)
        for table in OF_OPTUNAS_TRIAL:
            for row in self._read(_ordered(table).where(table.c.trial_id.in_(own))):
                written = encoded(table, row, without=_ids(table))
                if table is optuna.user_attrs and row["key"] == TICKET and row["value_json"].isdecimal():
                    ordinal = self._ordinals.get(int(row["value_json"]))
                    written |= {} if ordinal is None else {"value_json": None, "ticket": ordinal}
                yield table, {**written, "trial": self._numbers[row["trial_id"]]}

    def _attempts(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        for row in self._read(_ordered(attempts).where(attempts.c.ticket_id.in_(self._own_tickets))):
            attempt = encoded(attempts, row, without=("ticket_id",))
            yield attempts, {**attempt, "ticket": self._ordinals[row["ticket_id"]]}

    def _read(self, statement: Select[Any]) -> Iterator[Any]:
        """Some rows at a time, as they are read."""
        yield from self._connection.execute(statement, execution_options={"yield_per": _AT_ONCE}).mappings()


def _ordered(table: Table) -> Select[Any]:
    return select(table).order_by(*table.primary_key.columns)


def _ids(table: Table) -> set[str]:
    """What names rows in this database only: its own key, and what it refers to."""
    return {column.name for column in table.columns if column.primary_key or column.foreign_keys}
