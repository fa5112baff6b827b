"""Documents by name: which text a dataset's name stands for, and how a file, folder, list or function is read.

A name is looked up among the registered ones, in HIGHNOON_DATA_DIR, in ./data, and among the built-in ones, in this
order; a path or a glob pattern is used as it is. In a folder NAME is NAME.txt or NAME.jsonl, else all numbered parts of
it (NAME_1.txt, NAME-00001-of-00004.jsonl). The names that the guide prints fall back to the built-in text.

Also holds documents out for validation, and removes their paragraphs from the training text. Held-out documents are
chosen by a digest of seed and text, so that neither their order nor their number in another dataset moves them. Texts
often repeat one another: a paragraph of a held-out document is cut out of every training document.
"""

from __future__ import annotations

import glob
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, Problem, UserInputError, nearest

Source = str | Path | Sequence[str] | Callable[[], Iterable[str]]
"""A path (text file, .jsonl file, folder, glob pattern), texts, or a function that returns texts."""

SUFFIXES = (".txt", ".jsonl")

_SECTIONS = 32
"""Into how many documents a single text is cut: enough to hold some out, few enough to keep its context."""

_SHORTEST_LEAK = 40
"""A shorter repeated paragraph, in characters, is not a leak but a heading or a common phrase."""

_PART = re.compile(r"[-_.]\d+([-_.]of[-_.]\d+)?$")
"""What the number of a part adds to a name."""

DATA_DIR = "HIGHNOON_DATA_DIR"
DEFAULT_DATASET = "python-docs"
GUIDE_NAMES = ("train_data", "train_subset")

_registered: dict[str, Source] = {}


def register_dataset(name: str, source: Source) -> None:
    """Gives the source a dataset name; it is read when the name is used. Raises InvalidInput."""
    problems = []
    if not isinstance(name, str) or not name.strip() or _is_a_path(name):
        problems.append(Problem(key="name", message="must be a name, not a path or a pattern", value=name))
    if not (isinstance(source, (str, Path, list, tuple)) or callable(source)):
        message = "must be a path, a list of texts, or a function that returns texts"
        problems.append(Problem(key="source", message=message, value=type(source).__name__))
    if problems:
        raise InvalidInput("register_dataset()", problems)
    _registered[name] = source if not isinstance(source, list) else tuple(source)


def known_datasets() -> list[str]:
    """Every name that can be used now, without the guide's."""
    files = [path for found in _data_folders() for path in found]
    return sorted({*_registered, *(path.stem for path in files), *map(_whole_name, files), DEFAULT_DATASET})


def load_documents(name: str) -> list[str]:
    """The documents of a dataset. Raises UserInputError, listing what is known, and for text that cannot be read."""
    source = _source_of(name)
    try:
        return read_source(source)
    except UserInputError as error:
        raise UserInputError(f"dataset {name!r}: {error}") from None


def _source_of(name: str) -> Source:
    if name in _registered:
        return _registered[name]
    if _is_a_path(name):
        return name
    if files := _data_files(name):
        return lambda: [text for file in files for text in read_source(file)]
    if name == DEFAULT_DATASET:
        return _python_docs
    if name in GUIDE_NAMES:
        warnings.warn(
            f"there is no dataset {name!r}: the built-in text {DEFAULT_DATASET!r} is used instead. "
            f"Replace it with register_dataset({name!r}, ...) or a file data/{name}.txt.",
            stacklevel=2,
        )
        return _python_docs
    known = known_datasets()
    raise UserInputError(
        f"there is no dataset {name!r}. {nearest(name, known)} Known: {', '.join(known)}. "
        "Add others with register_dataset(), or as NAME.txt or NAME.jsonl in ./data or HIGHNOON_DATA_DIR."
    )


def _data_files(name: str) -> list[Path]:
    """The file of that name, else its numbered parts; of the first folder that has any."""
    for files in _data_folders():
        found = [path for path in files if path.stem == name]
        if found := found or [path for path in files if _whole_name(path) == name]:
            return found
    return []


def _data_folders() -> Iterator[list[Path]]:
    """The files of each folder that may have some."""
    for folder in filter(None, (os.environ.get(DATA_DIR), "data")):
        yield sorted(path for path in Path(folder).expanduser().glob("*") if path.suffix in SUFFIXES)


def _whole_name(path: Path) -> str:
    """`news` for news_1.txt, news-2.txt and news-00001-of-00004.txt."""
    return _PART.sub("", path.stem)


def _is_a_path(name: str) -> bool:
    return any(mark in name for mark in "/*?") or name.endswith(SUFFIXES)


def _python_docs() -> list[str]:
    """The English reference that CPython has for its help(): about 80 topics, 465 kB, no file to download."""
    from pydoc_data.topics import topics

    return [text for _, text in sorted(topics.items())]


def read_source(source: Source) -> list[str]:
    """All documents that are more than white space. Raises UserInputError when there are none or one is not text."""
    if isinstance(source, (str, Path)):
        documents = _read_files(_files(source))
    else:
        documents = _texts(source() if callable(source) else source)
    kept = [document for document in documents if document.strip()]
    if not kept:
        raise UserInputError(f"there is no text in {_named(source)}")
    return sections(kept[0]) if len(kept) == 1 else kept


def _read_files(paths: Iterable[Path]) -> list[str]:
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
    left = size
    for part in parts:
        if left <= 0:
            cut.append([])
            left = size
        cut[-1].append(part)
        left -= len(part) + len(separator)
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
        raise UserInputError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
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
            raise UserInputError(f"{path}, line {number}, is not JSON: {error}") from None
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
            raise UserInputError(f"document {number} of a dataset is not text but a {type(document).__name__}")
    return documents


def _named(source: Source) -> str:
    if callable(source):
        return f"what {getattr(source, '__name__', source)}() returns"
    return str(source) if isinstance(source, (str, Path)) else f"a list of {len(source)} documents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Two sides of one dataset that share no document."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def split_documents(documents: Sequence[str], *, share: float, seed: int) -> Split:
    """Holds out about `share` of the text, at least one document. Raises UserInputError for a single document."""
    distinct = sorted(set(documents), key=lambda document: _rank(seed, document))
    if len(distinct) < 2:
        raise UserInputError(
            "it takes two different documents, one to train on and one to validate on, and there is only one"
        )
    target = share * sum(map(len, distinct))
    held_out: set[str] = set()
    size = 0
    for document in distinct[:-1]:
        if size + len(document) <= target:
            held_out.add(document)
            size += len(document)
    held_out = held_out or {min(distinct, key=len)}
    return Split(
        training=tuple(document for document in documents if document not in held_out),
        held_out=tuple(document for document in distinct if document in held_out),
    )


def without_leaks(training: Iterable[str], held_out: Iterable[str]) -> list[str]:
    """The training documents without any paragraph that a held-out document has, white space aside."""
    known = {digest for document in held_out for _, digest in _long_paragraphs(document)}
    cleaned = []
    for document in training:
        kept = document.split("\n\n")
        if leaked := {paragraph for paragraph, digest in _long_paragraphs(document) if digest in known}:
            kept = [paragraph for paragraph in kept if paragraph not in leaked]
        if text := "\n\n".join(kept):
            cleaned.append(text)
    return cleaned


def _long_paragraphs(document: str) -> Iterable[tuple[str, bytes]]:
    for paragraph in document.split("\n\n"):
        words = " ".join(paragraph.split())
        if len(words) >= _SHORTEST_LEAK:
            yield paragraph, blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _rank(seed: int, document: str) -> bytes:
    return blake2b(document.encode("utf-8", "surrogatepass"), digest_size=16, key=str(seed).encode()).digest()
