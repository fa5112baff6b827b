"""Which text a dataset's name stands for.

A name is looked up among the registered ones, in HIGHNOON_DATA_DIR, in ./data, and among the built-in ones, in this
order; a path or a glob pattern stands for itself. The names that the guide prints fall back to the built-in text.
"""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from highnoon.lm.data.sources import SUFFIXES, Source, read_source
from highnoon.shared.domain.errors import InvalidInput, Problem, UserInputError, nearest

DATA_DIR = "HIGHNOON_DATA_DIR"
DEFAULT_DATASET = "python-docs"
GUIDE_NAMES = ("train_data", "train_subset")

_registered: dict[str, Source] = {}


def register_dataset(name: str, source: Source) -> None:
    """Makes `name` stand for the source from now on; it is read when it is used. Raises InvalidInput."""
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
    return sorted({*_registered, *(path.stem for path in _data_files("")), DEFAULT_DATASET})


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
    if files := list(_data_files(name)):
        return lambda: [text for file in files for text in read_source(file)]
    if name == DEFAULT_DATASET:
        return _python_docs
    if name in GUIDE_NAMES:
        warnings.warn(
            f"there is no dataset {name!r}: the built-in text {DEFAULT_DATASET!r} stands in for it. "
            f"Give it a text of yours with register_dataset({name!r}, ...) or a file data/{name}.txt.",
            stacklevel=2,
        )
        return _python_docs
    known = known_datasets()
    raise UserInputError(
        f"there is no dataset {name!r}. {nearest(name, known)} Known: {', '.join(known)}. "
        "Others are made known by register_dataset(), or as NAME.txt or NAME.jsonl in ./data or HIGHNOON_DATA_DIR."
    )


def _data_files(name: str) -> Iterator[Path]:
    """The files for the name, of the first folder that has any."""
    for folder in filter(None, (os.environ.get(DATA_DIR), "data")):
        pattern = f"{glob.escape(name)}*"
        found = sorted(path for path in Path(folder).expanduser().glob(pattern) if path.suffix in SUFFIXES)
        if found:
            yield from found
            return


def _is_a_path(name: str) -> bool:
    return any(mark in name for mark in "/*?") or name.endswith(SUFFIXES)


def _python_docs() -> list[str]:
    """The English reference that CPython carries for its help(): about 80 topics, 465 kB, no file to download."""
    from pydoc_data.topics import topics

    return [text for _, text in sorted(topics.items())]
