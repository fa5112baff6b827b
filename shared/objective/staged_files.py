"""What a running trial saves: copies in a folder of its own, until the process that runs it has stored them.

A file is copied when it is saved, so that the objective may change or delete it at once. The trial knows no store and
holds no credential. Checkpoints are packed at a report, while the objective writes none.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from highnoon.shared.domain.artifact import MOST_ARTIFACTS, name_flaw
from highnoon.shared.domain.errors import InvalidInput, Problem

_NUMBER = re.compile(r"[0-9]{1,9}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Moved = Callable[[int], object]
"""Gets each number of bytes that were copied; what it raises ends the copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """A file in a trial's folder of copies. Without a name it is the trial's checkpoint, packed."""

    file: str
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingLimits:
    """`artifact_bytes` for all files of a trial; `checkpoint_s` between two checkpoints, None for none to be stored."""

    artifact_bytes: int = 5_000_000_000
    checkpoint_s: float | None = None


NO_CHECKPOINTS = SavingLimits()


class StagedFiles:
    """The trial's side. Makes its folder when something is saved."""

    def __init__(
        self,
        folder: Path | None = None,
        limits: SavingLimits = NO_CHECKPOINTS,
        artifact_bytes: Callable[[], int] | None = None,
    ) -> None:
        """`artifact_bytes` returns the limit for each file, instead of `limits.artifact_bytes`."""
        self._folder = folder
        self._limits = limits
        self._artifact_bytes = artifact_bytes or (lambda: limits.artifact_bytes)
        self._numbers = itertools.count(1)
        self._sizes: dict[str, int] = {}
        self._packed: object = None
        self._packed_at = time.monotonic()

    def copy(self, path: object, name: object = None) -> SavedFile:
        """Copies a file to be stored by that name. Raises InvalidInput with every mistake, OSError for a full disk."""
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise _refused([Problem(key="path", message="must be the path of a file", value=path)])
        source = Path(os.fsdecode(os.fspath(path)))
        name = source.name if name is None else name
        problems = []
        if not source.is_file():
            hint = "Pack it first, with shutil.make_archive for example." if source.is_dir() else ""
            what = "is a folder, and an artifact is one file" if source.is_dir() else "there is no such file"
            problems.append(Problem(key="path", message=what, value=str(source), hint=hint))
        if flaw := name_flaw(name):
            problems.append(Problem(key="name", message=flaw, value=name))
        if problems or not isinstance(name, str):
            raise _refused(problems)
        size = source.stat().st_size
        others = {key: others_size for key, others_size in self._sizes.items() if key != name}
        if len(others) >= MOST_ARTIFACTS:
            message = f"a trial keeps {MOST_ARTIFACTS} files; save this one by the name of an earlier one"
            raise _refused([Problem(key="name", message=message, value=name)])
        if size + sum(others.values()) > (most := self._artifact_bytes()):
            message = f"has {size:,} bytes, and all files of a trial may have {most:,}"
            hint = "HIGHNOON_ARTIFACT_LIMIT_BYTES sets that limit, of a worker or of a program without a cluster."
            raise _refused([Problem(key="path", message=message, value=str(source), hint=hint)])
        target = self._next()
        try:
            shutil.copyfile(source, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        self._sizes[name] = size
        return SavedFile(file=target.name, name=name)

    def pack_if_due(self, checkpoints: Path | None) -> SavedFile | None:
        """The checkpoint, once an interval is over and where it changed since the last one. Raises OSError."""
        every_s = self._limits.checkpoint_s
        if every_s is None or checkpoints is None or time.monotonic() - self._packed_at < every_s:
            return None
        found = _fingerprint(checkpoints)
        if not found or found == self._packed:
            return None
        target = self._next()
        pack(checkpoints, target)
        # After the copy: one that takes long does not fill the time in which the trial should train.
        self._packed, self._packed_at = found, time.monotonic()
        return SavedFile(file=target.name, name=None)

    def _next(self) -> Path:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / str(next(self._numbers))


def pack(folder: Path, target: Path) -> None:
    """Writes a folder into one file, which is removed where that fails. Raises OSError."""
    try:
        with tarfile.open(target, "w") as archive:
            _add(archive, folder)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _add(archive: tarfile.TarFile, folder: Path) -> None:
    roots = {os.path.abspath(folder), os.path.realpath(folder)}  # noqa: PTH100

    def added(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """A link to a place in the folder leads there also where the folder is another one."""
        if member.issym() and os.path.isabs(member.linkname):  # noqa: PTH117
            for root in roots:
                target = os.path.relpath(member.linkname, root)
                if target.split("/", 1)[0] != "..":
                    member.linkname = os.path.relpath(target, os.path.dirname(member.name))  # noqa: PTH120
                    break
        return member if member.isreg() or member.isdir() or member.issym() or member.islnk() else None

    archive.add(folder, arcname=".", filter=added)


def _extract(packed: tarfile.TarFile, folder: Path) -> None:
    """Leaves out what leads out of the folder."""
    members = (member for member in packed if _make_harmless(member, folder))
    if hasattr(tarfile, "data_filter"):  # since 3.10.12 and 3.11.4; early ones let some hard links out
        packed.extractall(folder, members, filter=_within)  # noqa: S202 (what the filter "data" refuses is left out)
    else:  # Debian 12 has 3.11.2
        packed.extractall(folder, members)  # noqa: S202


def _within(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    try:
        return tarfile.data_filter(member, folder)
    except tarfile.FilterError:
        return None


def _make_harmless(member: tarfile.TarInfo, folder: Path) -> bool:
    """Refuses what `tarfile.data_filter` refuses, asked right before the member is extracted; takes away its owner and
    special modes. No link is written through, so that names can be compared as text. The text that was compared is what
    is extracted: for the kernel `link/..` is another folder than for `normpath`."""
    member.name = os.path.normpath(member.name)
    paths = [member.name]
    if member.issym():
        # With each `..` at its beginning: behind a link's name it would lead to what is above that link's target.
        member.linkname = os.path.normpath(member.linkname)
        target = os.path.normpath(os.path.join(os.path.dirname(paths[0]), member.linkname))  # noqa: PTH118, PTH120
    elif member.islnk():
        target = member.linkname = os.path.normpath(member.linkname)
        paths.append(target)
    elif member.isreg() or member.isdir():
        target = paths[0]
    else:
        return False
    if any(path.split("/", 1)[0] in ("", "..") for path in (*paths, target)):
        return False
    if any((folder / part).is_symlink() for path in paths for part in (Path(path), *Path(path).parents)):
        return False
    member.mode = member.mode & 0o755 | (0o700 if member.isdir() else 0o600)
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    return not member.islnk() or (folder / target).is_file()


def unpack(archive: BinaryIO, folder: Path, moved: Moved) -> None:
    """The inverse of `pack`: makes the folder, which appears whole. Leaves out what leads out of it, and what is no
    file, folder or link. Raises OSError, tarfile.TarError."""
    draft = folder.with_name(f".fetching-{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Counted(archive, moved)), mode="r|") as packed:
            _extract(packed, draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class _Counted:
    """A file that gives `moved` each number of bytes that are read or written."""

    def __init__(self, file: BinaryIO, moved: Moved) -> None:
        self._file, self._moved = file, moved

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._moved(len(data))
        return data

    def write(self, data: bytes) -> int:
        self._moved(len(data))
        return self._file.write(data)


def saved_of(event: Mapping[str, Any]) -> SavedFile:
    """The SavedFile in a `file` event. Raises ValueError, KeyError."""
    file, name = event["file"], event["name"]
    if not isinstance(file, str) or _NUMBER.fullmatch(file) is None:
        raise ValueError(f"a file {file!r}")
    if name is not None and (flaw := name_flaw(name)):
        raise ValueError(f"a file named {name!r}, which {flaw}")
    return SavedFile(file=file, name=name)


def opened_copy(folder: Path, saved: SavedFile) -> BinaryIO:
    """The copy, by the process that stores it: a plain file of the trial's, never what a link of it leads to.

    Raises OSError.
    """
    with _opened_folder(folder) as opened:
        descriptor = os.open(saved.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=opened)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{folder / saved.file} is no plain file")
    return os.fdopen(descriptor, "rb")


def remove_copy(folder: Path, saved: SavedFile) -> None:
    """Removes the copy, by the process that has stored it. Raises OSError."""
    with _opened_folder(folder) as opened:
        os.unlink(saved.file, dir_fd=opened)


def pack_copy(checkpoints: Path, folder: Path, saved: SavedFile, moved: Moved) -> None:
    """As `pack`, into a copy of an ended trial, by the process that stores it. Raises OSError."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    with _opened_folder(folder, make=True) as opened:
        with suppress(FileNotFoundError):
            os.unlink(saved.file, dir_fd=opened)
        descriptor = os.open(saved.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=opened)
    with os.fdopen(descriptor, "wb") as file:
        counted = cast(BinaryIO, _Counted(file, moved))
        with tarfile.open(fileobj=counted, mode="w|") as archive:
            _add(archive, checkpoints)


@contextmanager
def _opened_folder(folder: Path, *, make: bool = False) -> Iterator[int]:
    """The folder of copies. A trial may have replaced its last two parts, and their links are not followed."""
    opened = os.open(folder.parent.parent, _FOLDER)
    try:
        for part in (folder.parent.name, folder.name):
            with suppress(FileExistsError):
                if make:
                    os.mkdir(part, dir_fd=opened)
            opened, before = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=opened), opened
            os.close(before)
        yield opened
    finally:
        os.close(opened)


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of all files; a change of one of them is a new checkpoint."""
    try:
        files = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]
        return tuple((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in files)
    except FileNotFoundError:  # written at this moment by a thread of the objective: at the next report, then
        return ()


def _refused(problems: list[Problem]) -> InvalidInput:
    return InvalidInput("save_artifact()", problems)
