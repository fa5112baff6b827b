"""Where files of trials are kept: a folder, or any place that fsspec can write to. Each file has an id and no name.

A folder is laid out as Optuna's FileSystemArtifactStore does, with each file under its id. There a file
appears whole or not at all; elsewhere a copy that was cut off may leave a part, so that a file counts only once all of
it is stored. A store may be slow, full, away or frozen: callers use it where nothing waits for it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from highnoon.shared.domain.artifact import Artifact, is_id
from highnoon.shared.domain.errors import FileStoreError, MissingExtra, NoSuchFile
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.runtime.urls import masked
from highnoon.shared.runtime.whole_file import whole_file

_CHUNK_BYTES = 1 << 20
_SYNC_BYTES = 64 << 20
"""Of a file on this machine, written to the disk at once. Else all of it would be written at the end, in which a copy
does not move."""
_BLOCK_BYTES = 5 << 20
"""Sent or fetched at once, the least that S3 takes: until then a copy does not move. s3fs would take 50 MiB."""
_MOST_BLOCKS = 9_000
"""S3 takes 10,000 of a file."""


class FileStore(Protocol):
    """All of it raises FileStoreError."""

    def put(self, file_id: str, source: BinaryIO, moved: Callable[[int], object]) -> tuple[int, str]:
        """Stores a file by its id, replacing an earlier one; its size and SHA-256. `moved` gets each number of bytes
        that were written, and what it raises ends the copy."""

    def opened(self, file_id: str) -> AbstractContextManager[BinaryIO]:
        """The file, to read it."""

    def remove(self, file_id: str) -> None:
        """Removes the file; does nothing where there is none."""


def file_store(place: str | Path, options: str | None = None) -> FileStore:
    """The store at a folder or an address of fsspec. Connects to nothing. Raises MissingExtra."""
    written = str(place)
    if written.startswith("file://"):
        written = written.removeprefix("file://")
    if "://" in written:
        return _Addressed(written, options)
    return _Folder(Path(os.path.expanduser(written)))  # noqa: PTH111 - `~nobody` stays as it is, and raises nothing


def store_of(settings: Settings) -> FileStore:
    """The store that this process's settings name. Raises FileStoreError where they name none, MissingExtra."""
    if settings.artifacts_place is None:
        raise FileStoreError("no place for artifacts is known here: set HIGHNOON_ARTIFACTS_URL as for the workers")
    return file_store(settings.artifacts_place, settings.artifacts_options)


def download(store: FileStore, artifact: Artifact, target: Path, moved: Callable[[int], object] = int) -> Path:
    """Writes an artifact to the file `target`, which appears whole. Raises FileStoreError also for another digest."""
    with store.opened(artifact.id) as source, _translated(str(target.parent)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target, mode=0o666) as file:
            _, digest = copied(source, file, moved, to_disk=True)
            if artifact.sha256 not in (None, digest):
                why = "its SHA-256 is not the one of its trial"
                raise FileStoreError(f"{artifact.name} ({artifact.id}) is damaged: {why}")
    return target


def copied(
    source: BinaryIO, target: Any, moved: Callable[[int], object] = int, *, to_disk: bool = False
) -> tuple[int, str]:
    """Copies to the end; how many bytes, and their SHA-256. `to_disk`: the target is a file of this machine, of which
    `moved` gets what the disk has, but for the last part."""
    size, synced, digest = 0, 0, hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        if to_disk and size - synced >= _SYNC_BYTES:
            target.flush()
            os.fdatasync(target.fileno())
            synced = size
        moved(len(chunk))
    return size, digest.hexdigest()


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, file_id: str, source: BinaryIO, moved: Callable[[int], object]) -> tuple[int, str]:
        path = self._path(file_id)
        with _translated(str(self._folder)):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with whole_file(path, mode=0o666, draft=_draft(path)) as file:
                return copied(source, file, moved, to_disk=True)

    @contextmanager
    def opened(self, file_id: str) -> Iterator[BinaryIO]:
        with _translated(str(self._folder)), self._path(file_id).open("rb") as file:
            yield file

    def remove(self, file_id: str) -> None:
        path = self._path(file_id)
        with _translated(str(self._folder)):
            for one in (path, _draft(path)):
                one.unlink(missing_ok=True)

    def _path(self, file_id: str) -> Path:
        return self._folder / _checked(file_id)


class _Addressed:
    def __init__(self, url: str, options: str | None) -> None:
        self._url = url.rstrip("/")
        self._options: dict[str, Any] = json.loads(options) if options else {}
        try:
            import fsspec
        except ModuleNotFoundError as error:
            remedy = 'which is not installed: pip install "highnoon-hpo[fsspec]"'
            raise MissingExtra(f"{masked(url)} needs fsspec, {remedy}", name="fsspec") from error
        self._fsspec: Any = fsspec

    def put(self, file_id: str, source: BinaryIO, moved: Callable[[int], object]) -> tuple[int, str]:
        system, path = self._at(file_id)
        with _translated(masked(self._url)):
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            size = source.seek(0, os.SEEK_END)
            source.seek(0)
            with system.open(path, "wb", block_size=_block_bytes(system, size)) as file:
                return copied(source, file, moved)

    @contextmanager
    def opened(self, file_id: str) -> Iterator[BinaryIO]:
        system, path = self._at(file_id)
        with _translated(masked(self._url)), system.open(path, "rb", block_size=_block_bytes(system)) as file:
            yield file

    def remove(self, file_id: str) -> None:
        system, path = self._at(file_id)
        with _translated(masked(self._url)), suppress(FileNotFoundError):
            system.rm_file(path)

    def _at(self, file_id: str) -> tuple[Any, str]:
        with _translated(masked(self._url)):
            system, path = self._fsspec.core.url_to_fs(f"{self._url}/{_checked(file_id)}", **self._options)
            return system, str(path)


def _block_bytes(system: Any, size: int = 0) -> int | None:
    """Of one file of that size; None for Databricks, which takes its own of 1 MiB only."""
    return None if "dbfs" in system.protocol else _BLOCK_BYTES * (1 + size // (_MOST_BLOCKS * _BLOCK_BYTES))


def _draft(path: Path) -> Path:
    """The same for each process: no two write a file, and its removal includes what a killed process has left."""
    return path.with_name(f".{path.name}.draft")


def _checked(file_id: str) -> str:
    if not is_id(file_id):
        raise FileStoreError(f"{file_id!r} is no id of a file")
    return file_id


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Each library behind fsspec raises errors of its own."""
    try:
        yield
    except FileNotFoundError:
        raise NoSuchFile(f"{where}: there is no such file or folder") from None
    except FileStoreError:
        raise
    except Exception as error:
        raise FileStoreError(f"{where}: {type(error).__name__}: {error}") from None
