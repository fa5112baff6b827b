"""The scratch folder of an attempt and the lock by which others know that it is in use.

    home/runs/<study>/trial-00007/tmp/      temporary files of the trial (TMPDIR), and copies of what it saves
    home/runs/<study>/.trial-00007.lock     locked from before the folder is made until its supervisor has removed it

The kernel releases the lock however the supervisor ends, and it holds across containers that share a home and cannot
look at each other's processes. It is beside the working directory, since the trial may remove what is in there.
What a trial has left is its own choice: no link in it is followed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from highnoon.workers.trial.process import SAVED_FILES, SHORT_PATH

_BUSY_S = 2.0
"""For the agent that removes the files of an earlier attempt at this moment."""
_LOOK_S = 0.05

_UNLOCKED_S = 86_400.0
"""A folder without a lock file is of a version without these locks, or on a disk that has none: kept for so long."""


class Scratch:
    """The scratch folder of one attempt, for its supervisor."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self._descriptor: int | None = None

    @property
    def saved(self) -> Path:
        """Where the trial puts copies of what it saves."""
        return self.work_dir.joinpath(*SAVED_FILES)

    def lock(self) -> None:
        """Locks the folder, and removes what an earlier attempt of the same name left there. Raises OSError.

        Goes on without a lock where the disk has none: the agents then keep the folder for a day.
        """
        path = lock_of(self.work_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        give_up_at = time.monotonic() + _BUSY_S
        while self._descriptor is None and time.monotonic() < give_up_at:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may have removed the file meanwhile.
                self._descriptor = descriptor if _is_at(descriptor, path) else None
            except BlockingIOError:
                time.sleep(_LOOK_S)
            except OSError:
                path.unlink(missing_ok=True)
                return
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        if self._descriptor is not None:
            _remove_files(self.work_dir)

    def remove(self) -> None:
        """Removes the folder, and releases the lock."""
        remove_scratch(self.work_dir)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_of(work_dir: Path) -> Path:
    """The lock file of the scratch folder of this working directory."""
    return work_dir.with_name(f".{work_dir.name}.lock")


def work_dirs_below(runs: Path) -> set[Path]:
    """The working directories that have a scratch folder or its lock."""
    locked = {lock.with_name(lock.name[1:].removesuffix(".lock")) for lock in runs.glob("*/.*.lock")}
    return locked | {scratch.parent for scratch in runs.glob("*/*/tmp")}


def remove_scratch(work_dir: Path) -> None:
    """Removes an attempt's scratch files, and the working directory if the objective wrote nothing into it."""
    _remove_files(work_dir)
    with suppress(OSError):
        lock_of(work_dir).unlink(missing_ok=True)
    with suppress(OSError):
        work_dir.rmdir()


def remove_unused(work_dir: Path) -> bool:
    """As `remove_scratch`, unless the folder is in use or may be; whether it was removed."""
    with suppress(OSError), _unused(work_dir) as is_unused:
        if is_unused:
            remove_scratch(work_dir)
        return is_unused
    return False


@contextmanager
def _unused(work_dir: Path) -> Iterator[bool]:
    """Whether no supervisor has the lock; none can take it meanwhile. Raises OSError where that cannot be known."""
    path = lock_of(work_dir)
    try:
        # NFS gives an exclusive lock only for a file that is open for writing.
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield time.time() - (work_dir / "tmp").lstat().st_mtime > _UNLOCKED_S
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield _is_at(descriptor, path)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _remove_files(work_dir: Path) -> None:
    scratch = work_dir / "tmp"
    with suppress(OSError):
        _remove_short_path(scratch)
    if scratch.is_symlink():
        with suppress(OSError):
            scratch.unlink()
    shutil.rmtree(scratch, ignore_errors=True)


def _remove_short_path(scratch: Path) -> None:
    """Removes the link outside of the scratch folder that leads to it, and the folder that was made for the link.

    The trial may have replaced what names this folder: only a link to this very scratch folder is removed, and only an
    empty folder.
    """
    descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        short = Path(os.readlink(SHORT_PATH, dir_fd=descriptor))
        link = short / "tmp"
        if short.is_absolute() and link.is_symlink() and os.path.samestat(link.stat(), os.fstat(descriptor)):
            link.unlink()
            short.rmdir()
    finally:
        os.close(descriptor)
