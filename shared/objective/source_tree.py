"""A folder of code: which files belong to it, and the digest by which two machines know that theirs are the same.

Hidden files, caches and environments are no code; nor is what `.highnoonignore` lists, a pattern a line, each compared
with a file's name and with its path below the folder. Runs nothing and follows no link to a folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective.reference import brought_module, own_module, source_of

IGNORE_FILE = ".highnoonignore"
NEVER_CODE = (".*", "__pycache__", "*.pyc", "node_modules", "venv", "*.egg-info")
MOST_ENTRIES = 20_000
MOST_FILES = 2_000
MOST_BYTES = 32_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeFile:
    """One file: its path below the root with `/`, and whether it is a link."""

    name: str
    path: str
    is_link: bool


def files_below(root: Path) -> Iterator[TreeFile]:
    """The files of the tree in the order of their names. Raises OSError for what cannot be listed."""
    yield from _files(str(root), "", (*NEVER_CODE, *_ignored(root)))


def _files(folder: str, above: str, ignored: Sequence[str]) -> Iterator[TreeFile]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{above}{entry.name}"
        if any(fnmatchcase(entry.name, pattern) or fnmatchcase(name, pattern) for pattern in ignored):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, f"{name}/", ignored)
        else:
            yield TreeFile(name=name, path=entry.path, is_link=entry.is_symlink())


def _ignored(root: Path) -> list[str]:
    try:
        lines = (root / IGNORE_FILE).read_text().splitlines()
    except (OSError, ValueError):
        return []
    return [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]


def root_of(ref: ObjectiveRef, code_dir: Path | None) -> Path | None:
    """What an objective's code is: the study's folder, its package, or its file. None for what has no source here."""
    if ref.is_file:
        path = Path(os.path.normpath((code_dir or Path("/")) / ref.where))
        root = code_dir if code_dir is not None and path.is_relative_to(code_dir) else path.parent
        return root if path.is_file() else None
    brought = brought_module(ref, code_dir)
    spec = brought or own_module(ref)
    file = source_of(spec) if spec else None
    if file is None:
        return None
    levels = ref.where.count(".") + (file.name == "__init__.py")
    if levels:
        return file.parents[levels - 1]
    return code_dir if brought else file


class CodeDigests:
    """Digests of source trees: a file is read again only when its size or its time has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, bytes]] = {}

    def of(self, root: Path) -> str | None:
        """The digest of all .py files below `root`, by their names and contents; of one file by its own.

        None when there are none, when they cannot be read, and when they are too many to be a project's code.
        """
        try:
            return self._of_tree(root) if root.is_dir() else self._combined([(root.name, str(root))])
        except OSError:
            return None

    def _of_tree(self, root: Path) -> str | None:
        sources: list[tuple[str, str]] = []
        for number, file in enumerate(files_below(root)):
            if number >= MOST_ENTRIES or len(sources) > MOST_FILES:
                return None
            if file.name.endswith(".py"):
                sources.append((file.name, file.path))
        return self._combined(sources) if sources else None

    def _combined(self, sources: Sequence[tuple[str, str]]) -> str | None:
        whole, size = hashlib.sha256(), 0
        for name, path in sources:
            info = Path(path).stat()
            size += info.st_size
            if size > MOST_BYTES:
                return None
            known = self._known.get(path)
            if known is None or known[:2] != (info.st_size, info.st_mtime_ns):
                known = (info.st_size, info.st_mtime_ns, hashlib.sha256(Path(path).read_bytes()).digest())
                self._known[path] = known
            whole.update(name.encode("utf-8", "surrogateescape") + b"\0" + known[2])
        return whole.hexdigest()
