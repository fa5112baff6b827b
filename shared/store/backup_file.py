"""The file of a backup: JSON lines. A header, a line for each row, and an end that proves the file whole.

Owns the format and the checks of a file; what the rows mean is `backup`'s business. There is no id of a database in it:
a trial is named by its number, a ticket by its ordinal, so that two backups of equal studies have equal lines.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, DateTime, Enum, Float, Integer, LargeBinary, String, Table

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.scalars import is_storable
from highnoon.shared.domain.study_checks import name_flaw

FORMAT = 1
_MOST_LINE_BYTES = 256 * 2**20
"""A bundle is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line: which study it is, of which ledger."""

    study: str
    ledger_version: int
    made_at: str


class BackupWriter:
    """Writes lines, and knows what the last one must be."""

    def __init__(self, file: IO[bytes], header: Header) -> None:
        self._file, self._digest, self._lines = file, hashlib.sha256(), 0
        self._write(
            {
                "highnoon_backup": FORMAT,
                "study": header.study,
                "ledger": header.ledger_version,
                "made_at": header.made_at,
            }
        )

    def row(self, table: str, row: Mapping[str, Any]) -> None:
        """One row, its values as `encoded` gives them."""
        self._write({"table": table, "row": row})

    def end(self) -> None:
        """The last line: a file without it was cut off."""
        self._write({"end": self._lines, "sha256": self._digest.hexdigest()})

    def _write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, allow_nan=False).encode() + b"\n"
        self._digest.update(text)
        self._lines += 1
        self._file.write(text)


def verified(path: Path) -> Header:
    """Reads the whole file once. Raises InvalidInput for one that is cut off, changed, or no backup of ours."""
    if not path.is_file():
        raise damaged(path, "is no file")
    digest, header, end = hashlib.sha256(), None, None
    for number, text, line in _lines(path):
        if end is not None:
            raise damaged(path, "goes on after its end", number)
        if header is None:
            header = _header(path, line)
        if "end" in line:
            end = line
            if line != {"end": number - 1, "sha256": digest.hexdigest()}:
                raise damaged(path, "was changed after it was written", number)
        digest.update(text)
    if header is None or end is None:
        raise damaged(path, "is cut off: its last line is missing" if header else "is empty")
    return header


def rows(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Line number, table and row of each line between header and end, of a file that was verified."""
    for number, _, line in _lines(path):
        if number > 1 and "end" not in line:
            table, row = line.get("table"), line.get("row")
            if not isinstance(table, str) or not isinstance(row, dict):
                raise damaged(path, "has a line that is no row of a table", number)
            yield number, table, row


def damaged(path: Path, message: str, line: int | None = None) -> InvalidInput:
    """What is wrong with the file. Nothing of it was written then."""
    where = str(path) if line is None else f"{path}, line {line}"
    hint = "Nothing was changed. Restore takes files that python -m coordinator backup wrote."
    return InvalidInput.of("backup", where, message, hint=hint)


def encoded(table: Table, row: Mapping[str, Any], *, without: Collection[str]) -> dict[str, Any]:
    """The columns of a row as JSON."""
    return {column.name: _encoded(row[column.name]) for column in table.columns if column.name not in without}


def decoded(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse. Raises ValueError for a column that the table has not, and for a value of another type."""
    unknown = row.keys() - table.columns.keys()
    if unknown:
        raise ValueError(f"{table.name} has no column {sorted(unknown)[0]!r}: it is of a newer version")
    return {name: _decoded(table.columns[name], value) for name, value in row.items()}


def _header(path: Path, line: Mapping[str, Any]) -> Header:
    form = line.get("highnoon_backup")
    if form is None:
        raise damaged(path, "is no backup of a study", 1)
    if form != FORMAT:
        raise damaged(path, f"has format {form!r}; this version reads {FORMAT}", 1)
    study, ledger, made_at = line.get("study"), line.get("ledger"), line.get("made_at")
    if not isinstance(study, str) or not isinstance(ledger, int) or not isinstance(made_at, str):
        raise damaged(path, "has a header that cannot be read", 1)
    if flaw := name_flaw(study):
        raise damaged(path, f"has a study whose name {flaw}", 1)
    return Header(study=study, ledger_version=ledger, made_at=made_at)


def _lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    with path.open("rb") as file:
        number = 0
        while text := file.readline(_MOST_LINE_BYTES):
            number += 1
            try:
                line = json.loads(text, parse_constant=_no_number)
            except (ValueError, RecursionError):
                raise damaged(path, "has a line that is no JSON", number) from None
            if not isinstance(line, dict) or not text.endswith(b"\n"):
                raise damaged(path, "has a line that is no object" if text.endswith(b"\n") else "is cut off", number)
            yield number, text, line


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _encoded(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime():
            return value.isoformat()
        case bytes() | memoryview():
            return base64.b64encode(value).decode()
        case _:
            # Optuna's columns hold members of an enumeration, by name; our own hold their words.
            return getattr(value, "name", value) if not isinstance(value, str) else str(value)


def _decoded(column: Column[Any], value: Any) -> Any:
    kind = column.type
    if value is None or isinstance(kind, JSON):
        return value
    if isinstance(kind, Float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    if isinstance(kind, Boolean) and isinstance(value, bool):
        return value
    if isinstance(kind, Integer) and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) < 2 ** (63 if isinstance(kind, BigInteger) else 31):
            return value
    elif isinstance(value, str):
        match kind:
            case Enum() if value in kind.enums:
                return value
            case DateTime():
                return datetime.fromisoformat(value)
            case LargeBinary():
                with suppress(binascii.Error):
                    return base64.b64decode(value, validate=True)
            case String() if not isinstance(kind, Enum) and is_storable(value):
                return value
    raise ValueError(f"{column} cannot hold {json.dumps(value)[:100]}")
