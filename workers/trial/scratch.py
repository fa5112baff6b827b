"""The scratch folder of an attempt and the lock by which others know that it is in use.

    home/runs/<study>/trial-00007/tmp/      temporary files of the trial (TMPDIR), and copies of what it saves
    home/runs/<study>/.trial-00007.lock     locked from before the folder is made until its supervisor has removed it

The kernel releases the lock however the supervisor ends, and it holds across containers that share a home but not
their processes. It is beside the working directory, since the trial may remove what is in there.
What a trial has left is its own choice: no link in it is followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from highnoon.workers.folder_age import WEEK_S, unchanged_s
from highnoon.workers.trial.process import SAVED_FILES, SHORT_PATH

_BUSY_S = 2.0
"""For the agent that removes the files of an earlier attempt at this moment."""
_LOOK_S = 0.05

_OPENED = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
"""NFS gives an exclusive lock only for a file that is open for writing."""


class Scratch:
    """The scratch folder of one attempt, for its supervisor."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self._descriptor: int | None = None
        self._disk_has_no_locks = False

    @property
    def saved(self) -> Path:
        """Where the trial puts copies of what it saves."""
        return self.work_dir.joinpath(*SAVED_FILES)

    def lock(self) -> None:
        """Locks the folder, and removes what an earlier attempt of the same name left there.

        What that one's objective has kept goes aside: it was of a deleted study with the same name as this one.
        Raises OSError, also where another supervisor has the lock. Goes on without a lock where the disk has none: the
        agents then keep the folder for a week.
        """
        path = lock_of(self.work_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        give_up_at = time.monotonic() + _BUSY_S
        while not self._try_lock(path):
            if time.monotonic() >= give_up_at:
                raise OSError(errno.EBUSY, "another attempt of the same name uses this folder", str(self.work_dir))
            time.sleep(_LOOK_S)
        _remove_files(self.work_dir)
        try:
            self.work_dir.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            with suppress(OSError):  # a mount point, for instance: the trial can do with it
                self.work_dir.rename(self.work_dir.with_name(f"{self.work_dir.name}-before-{time.time_ns()}"))

    def _try_lock(self, path: Path) -> bool:
        """True with the lock, and where the disk has none."""
        descriptor = os.open(path, _OPENED | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed the file meanwhile.
            self._descriptor = descriptor if _is_at(descriptor, path) else None
        except BlockingIOError:
            return False
        except OSError:
            self._disk_has_no_locks = True
            path.unlink(missing_ok=True)
        finally:
            if self._descriptor is None:
                os.close(descriptor)
        return self._disk_has_no_locks or self._descriptor is not None

    def remove(self) -> None:
        """Removes the folder, and releases the lock; without one the folder may be another attempt's, and is left."""
        if self._descriptor is not None or self._disk_has_no_locks:
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
    # The lock last: the next attempt may be about to make the folder.
    with suppress(OSError):
        work_dir.rmdir()
    with suppress(OSError):
        lock_of(work_dir).unlink(missing_ok=True)


def remove_unused(work_dir: Path) -> bool:
    """As `remove_scratch`, unless the folder is in use or may be; whether it was removed.

    A folder without a lock file is of a version without these locks, or on a disk that has none: one that has not
    changed for a week is not in use.
    """
    with suppress(OSError):
        return _remove_if_unused(work_dir)
    return False


def _remove_if_unused(work_dir: Path) -> bool:
    path = lock_of(work_dir)
    had_lock = os.path.lexists(path)
    if not had_lock and not _is_old(work_dir):
        return False
    # Also where there is none, so that an attempt that begins now waits.
    descriptor = os.open(path, _OPENED | (0 if had_lock else os.O_CREAT), 0o600)
    try:
        is_unused = _is_free(descriptor, path, disk_may_have_no_locks=not had_lock)
        if is_unused and not had_lock and not _is_old(work_dir):  # changed since it was looked at
            is_unused = False
            path.unlink(missing_ok=True)
        if is_unused:
            remove_scratch(work_dir)
        return is_unused
    finally:
        os.close(descriptor)


def _is_old(work_dir: Path) -> bool:
    return unchanged_s(work_dir / "tmp") > WEEK_S


def _is_free(descriptor: int, path: Path, *, disk_may_have_no_locks: bool) -> bool:
    """Whether no supervisor has the lock; none can take it before the descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _is_at(descriptor, path)
    except BlockingIOError:
        return False
    except OSError:
        return disk_may_have_no_locks


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
