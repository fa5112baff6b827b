"""CSVLogger: a line per finished trial in one file, which any table program opens.

A trial that is in the file is not written again, by this process or another. Several processes may share the file, also
for several studies; a lock on it keeps lines whole and columns the same for all.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from highnoon.callbacks.finished_trial import FinishedTrial, TrialLogger
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.views.formats import finite

_FIXED = (
    *("study", "trial", "state", "score", "loss", "model_params", "active_params"),
    *("cause", "message", "started_at", "duration_s", "reports"),
)
_BEGINNING = ",".join(_FIXED).encode()
_VALUE, _PARAM = "value:", "param:"
_OTHERS = "other_params"
_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^,\r\n]*))(,|\r?\n)')
"""One field and what ends it."""


class CSVLogger(TrialLogger):
    """Appends to `path`; its folder must exist. The first trial's parameters become columns, and several objectives.

    A parameter that only later trials have goes to the last column, as JSON; one that a trial lacks is left empty. So
    do the values of objectives, as "value:NAME", where the first trial's study had others.
    Reports are pairs of step and value, as JSON. Raises InvalidInput for a file that is something else.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).absolute()
        if not self._path.parent.is_dir():
            raise _refused(self._path, f"there is no folder {self._path.parent}")
        if self._path.exists():
            with self._path.open("rb") as file:
                self._check(file.read(len(_BEGINNING)))
        self._columns: list[str] = []
        self._written: set[tuple[str, ...]] = set()
        self._read_to = 0

    def _write(self, ended: FinishedTrial) -> None:
        """Nothing when its line is there."""
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._catch_up(file)
            if _identity(ended) in self._written:
                return
            self._append(file, ended)

    def _append(self, file: BinaryIO, ended: FinishedTrial) -> None:
        named = [*(_VALUE + name for name in ended.objectives), *(_PARAM + name for name in ended.trial.params)]
        columns = self._columns or [*_FIXED, *named, _OTHERS]
        heading = [] if self._columns else [columns]
        # In one write, and on disk before the lock is free: a line that is half there is dropped by the next writer.
        file.write(_text([*heading, _cells(ended, columns)]).encode())
        file.flush()
        os.fsync(file.fileno())
        self._columns, self._read_to = columns, file.tell()
        self._written.add(_identity(ended))

    def _catch_up(self, file: BinaryIO) -> None:
        """Reads what others have written since; removes the partial line of a killed writer."""
        if os.fstat(file.fileno()).st_size < self._read_to:
            self._columns, self._read_to = [], 0  # the file was replaced
            self._written.clear()
        file.seek(self._read_to)
        new = file.read()
        if not self._read_to:
            self._check(new)
        whole = new[: new.rfind(b"\n") + 1]
        rows = list(_rows(whole.decode()))
        if rows and not self._columns:
            self._columns = rows.pop(0)
        trials = [row for row in rows if len(row) >= len(_FIXED)]
        self._written.update((row[0], row[1], row[_FIXED.index("started_at")]) for row in trials)
        self._read_to += len(whole)
        if len(whole) < len(new):
            file.truncate(self._read_to)

    def _check(self, beginning: bytes) -> None:
        if not beginning.startswith(_BEGINNING[: len(beginning)]):
            raise _refused(self._path, "is not a table of trials: its first line names other columns")


def _identity(ended: FinishedTrial) -> tuple[str, ...]:
    """As written in the file: see FinishedTrial.key."""
    fixed = _fixed_cells(ended)
    return tuple(_on_one_line(fixed[name]) for name in ("study", "trial", "started_at"))


def _cells(ended: FinishedTrial, columns: list[str]) -> list[str]:
    named: dict[str, object] = {_VALUE + name: value for name, value in ended.values.items()}
    named |= {_PARAM + name: value for name, value in ended.trial.params.items()}
    others = {name.removeprefix(_PARAM): finite(value) for name, value in named.items() if name not in columns}
    cells = {**_fixed_cells(ended), **named, _OTHERS: json.dumps(others) if others else ""}
    return [_on_one_line(cells.get(name)) for name in columns]


def _fixed_cells(ended: FinishedTrial) -> dict[str, object]:
    trial = ended.trial
    return {
        **ended.measured,
        "study": ended.study,
        "trial": trial.number,
        "state": str(trial.state),
        "cause": ended.cause,
        "message": ended.message,
        "started_at": trial.started_at.isoformat() if trial.started_at else "",
        "reports": json.dumps(finite([(report.step, report.value) for report in trial.reports]))
        if trial.reports
        else "",
    }


def _on_one_line(value: object) -> str:
    """So that a line of the file is a trial, and a partial line can be recognised."""
    text = "" if value is None else str(value)
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _rows(text: str) -> Iterator[list[str]]:
    """As csv.reader, which refuses a field over 131,072 characters (5,000 reports), by a limit of the whole process."""
    row: list[str] = []
    for quoted, plain, end in _FIELD.findall(text):
        row.append(quoted.replace('""', '"') or plain)
        if end != ",":
            yield row
            row = []


def _text(rows: list[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _refused(path: Path, message: str) -> InvalidInput:
    return InvalidInput.of("CSVLogger", "path", message, value=str(path), hint="Give CSVLogger another path.")
