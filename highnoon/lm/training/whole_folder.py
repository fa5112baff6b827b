"""Folders that appear and disappear whole, also where several trials write and remove the same names at once."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_DRAFT = re.compile(r"\.(writing|replaced)-.+-[0-9a-f]{32}")
_DRAFT_S = 3600.0
"""Older drafts were left by a process that was killed: a checkpoint is written in seconds."""


@contextmanager
def appearing(final: Path) -> Iterator[Path]:
    """Gives a new folder, which replaces `final` at the end, and is removed after an exception. Raises OSError."""
    _remove_old_drafts(final.parent)
    partial = _draft("writing", final)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.iterdir(), partial]:
            sync(path)
        _replace(final, partial)
    except BaseException:
        remove(partial)
        raise


def remove(*folders: Path) -> None:
    """Removes those that exist, with all that is in them. Raises OSError."""
    for folder in folders:
        if folder.is_dir():
            _remove_renamed(_renamed(folder))


def names_in(folder: Path) -> list[str]:
    """What a folder holds; nothing where there is no folder."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def sync(path: Path) -> None:
    """Has the kernel write a file, or a folder's names, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(final: Path, partial: Path) -> None:
    while True:
        replaced = _renamed(final) if final.is_dir() else None
        try:
            partial.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            is_done = False  # another process has written the same name since
        else:
            is_done = True
            sync(final.parent)
        _remove_renamed(replaced)
        if is_done:
            return


def _renamed(folder: Path) -> Path | None:
    """The folder's new name, so that no process reads a part of it; None where another process was faster."""
    renamed = _draft("replaced", folder)
    try:
        return folder.rename(renamed)
    except FileNotFoundError:
        return None


def _remove_renamed(folder: Path | None) -> None:
    if folder is not None:
        with suppress(FileNotFoundError):  # another process takes it for an old draft: its files are that old
            shutil.rmtree(folder)


def _draft(purpose: str, final: Path) -> Path:
    """A name that no other process uses."""
    return final.with_name(f".{purpose}-{final.name}-{uuid4().hex}")


def _remove_old_drafts(folder: Path) -> None:
    for draft in [folder / name for name in names_in(folder) if _DRAFT.fullmatch(name)]:
        with suppress(OSError):  # it may belong to another user; what cannot be removed ends no training
            if time.time() - draft.stat().st_mtime > _DRAFT_S:
                shutil.rmtree(draft)
