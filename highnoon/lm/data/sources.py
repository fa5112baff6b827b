"""Documents from where text comes: a file, a folder, JSON lines, a list, a function.

Owns the reading and says what could not be read. Names and their places are the business of `registry`.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from highnoon.shared.domain.errors import UserInputError

Source = str | Path | Sequence[str] | Callable[[], Iterable[str]]
"""A path (text file, .jsonl file, folder, glob pattern), texts, or a function that returns texts."""

SUFFIXES = (".txt", ".jsonl")

_SECTIONS = 32
"""Into how many documents a single text is cut: enough to hold some out, few enough to keep its context."""


def read_source(source: Source) -> list[str]:
    """All documents that are more than white space. Raises UserInputError when there are none or one is no text."""
    if isinstance(source, (str, Path)):
        documents = read_files(_files(source))
    else:
        documents = _texts(source() if callable(source) else source)
    kept = [document for document in documents if document.strip()]
    if not kept:
        raise UserInputError(f"there is no text in {_named(source)}")
    return sections(kept[0]) if len(kept) == 1 else kept


def read_files(paths: Iterable[Path]) -> list[str]:
    """A document for each text file and for each line of JSON. Raises UserInputError, naming file and line."""
    documents: list[str] = []
    for path in paths:
        text = _text_of(path)
        documents += _json_lines(path, text) if path.suffix == ".jsonl" else [text]
    return documents


def sections(text: str) -> list[str]:
    """One long text as several documents, cut at blank lines, or at line ends where there are none."""
    separator = "\n\n" if text.count("\n\n") >= _SECTIONS else "\n"
    parts = [part for part in text.split(separator) if part.strip()]
    size = max(-(-len(text) // _SECTIONS), 1)
    cut: list[list[str]] = [[]]
    room = size
    for part in parts:
        if room <= 0:
            cut.append([])
            room = size
        cut[-1].append(part)
        room -= len(part) + len(separator)
    return [separator.join(section) for section in cut]


def _files(source: str | Path) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        found = sorted(entry for entry in path.rglob("*") if entry.suffix in SUFFIXES and entry.is_file())
        if not found:
            raise UserInputError(f"the folder {path} holds no file ending in {' or '.join(SUFFIXES)}")
        return found
    found = [path] if path.is_file() else sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not found:
        raise UserInputError(f"there is no file {path}")
    return found


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise UserInputError(f"{path} cannot be read ({error.strerror})") from None


def _json_lines(path: Path, text: str) -> list[str]:
    documents = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserInputError(f"{path}, line {number}, is no JSON: {error}") from None
        document = record.get("text") if isinstance(record, dict) else None
        if not isinstance(document, str):
            raise UserInputError(f'{path}, line {number}: expected an object with a key "text" that holds text')
        documents.append(document)
    return documents


def _texts(found: object) -> list[str]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise UserInputError(f"a dataset is made of several texts, not of a {type(found).__name__}")
    documents = list(found)
    for number, document in enumerate(documents):
        if not isinstance(document, str):
            raise UserInputError(f"document {number} of a dataset is no text but a {type(document).__name__}")
    return documents


def _named(source: Source) -> str:
    if callable(source):
        return f"what {getattr(source, '__name__', source)}() returns"
    return str(source) if isinstance(source, (str, Path)) else f"a list of {len(source)} documents"
