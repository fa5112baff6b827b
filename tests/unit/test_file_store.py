"""Stores of files: a folder and an address of fsspec behave alike, and a damaged file is found."""

from __future__ import annotations

import hashlib
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.errors import FileStoreError, InvalidInput
from highnoon.shared.runtime import file_store as store_module
from highnoon.shared.runtime.file_store import FileStore, download, file_store, store_of
from highnoon.shared.runtime.settings import load_settings

CONTENT = bytes(range(256)) * 5000


@pytest.fixture(params=["folder", "file://", "memory://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    if request.param == "memory://":
        pytest.importorskip("fsspec")
        return file_store(f"memory://{tmp_path}/artifacts")
    return file_store(f"{'file://' if request.param == 'file://' else ''}{tmp_path}/artifacts")


def test_a_file_is_stored_read_replaced_and_removed(store: FileStore, tmp_path: Path) -> None:
    moved: list[int] = []
    stored = store.put("a1", io.BytesIO(CONTENT), moved.append)
    assert stored == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert sum(moved) == len(CONTENT)

    artifact = Artifact(id="a1", name="model.bin", sha256=stored[1])
    assert download(store, artifact, tmp_path / "down" / "model.bin").read_bytes() == CONTENT

    store.put("a1", io.BytesIO(b"new"), int)
    with store.opened("a1") as file:
        assert file.read() == b"new"
    with pytest.raises(FileStoreError, match=r"model.bin \(a1\) is damaged"):
        download(store, artifact, tmp_path / "down" / "model.bin")
    assert (tmp_path / "down" / "model.bin").read_bytes() == CONTENT
    assert len(list((tmp_path / "down").iterdir())) == 1

    store.remove("a1")
    store.remove("a1")
    with pytest.raises(FileStoreError, match="no such file"), store.opened("a1"):
        pass


@pytest.mark.parametrize(("protocol", "refused", "sent"), [("bucket", (), 5 << 20), ("dbfs", (5 << 20,), 50 << 20)])
def test_a_store_that_sends_in_blocks_gets_small_ones(protocol: str, refused: tuple[int, ...], sent: int) -> None:
    """A copy of which nothing is sent for half a minute is given up."""
    fsspec = pytest.importorskip("fsspec")
    blocks: list[int] = []

    class File(fsspec.spec.AbstractBufferedFile):  # type: ignore[misc, name-defined]
        def _initiate_upload(self) -> None:
            pass

        def _upload_chunk(self, final: bool = False) -> bool:
            blocks.append(self.buffer.tell())
            return True

    class Bucket(fsspec.AbstractFileSystem):  # type: ignore[misc, name-defined]
        """Sends 50 MiB at once unless it is asked for less."""

        def _open(self, path: str, mode: str, block_size: int | None, **options: object) -> File:
            assert block_size not in refused
            return File(self, path, mode, block_size or 50 << 20)

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            pass

    Bucket.protocol = protocol
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    content = bytes(11 << 20)
    moved: list[int] = []

    file_store("bucket://b/f").put("a1", io.BytesIO(content), lambda _: moved.append(sum(blocks)))

    assert sum(blocks) == len(content) and max(blocks) <= min(sent + (1 << 20), len(content))
    assert (moved[6] > 0) is (sent < len(content)), "it moves while the rest is still to be read"


@pytest.mark.parametrize("file_id", ["../a", "a/b", "", ".a", "a" * 101])
def test_what_is_no_id_leads_nowhere(store: FileStore, file_id: str) -> None:
    with pytest.raises(FileStoreError, match="is no id of a file"):
        store.put(file_id, io.BytesIO(b""), int)


def test_copy_into_a_folder_moves_only_when_the_disk_has_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a slow disk writes a large file at its end, in which nothing moves until it is given up."""
    at_once, on_disk, ahead = 2 << 20, [0], []
    monkeypatch.setattr(store_module, "_SYNC_BYTES", at_once)

    def noting(sync: Callable[[int], None]) -> Callable[[int], None]:
        def noted(descriptor: int) -> None:
            ahead.append(os.fstat(descriptor).st_size - on_disk[0])
            sync(descriptor)
            on_disk[0] = os.fstat(descriptor).st_size

        return noted

    monkeypatch.setattr(os, "fdatasync", noting(os.fdatasync))
    monkeypatch.setattr(os, "fsync", noting(os.fsync))
    content, moved = bytes(7 << 20), [0]

    def note_moved(size: int) -> None:
        moved[0] += size
        assert moved[0] - on_disk[0] <= at_once

    _, digest = file_store(tmp_path / "store").put("a1", io.BytesIO(content), note_moved)
    assert (moved[0], on_disk[0], max(ahead)) == (len(content), len(content), at_once)

    on_disk[0], moved[0] = 0, 0
    artifact = Artifact(id="a1", name="model.bin", sha256=digest)
    download(file_store(tmp_path / "store"), artifact, tmp_path / "model.bin", note_moved)
    assert (moved[0], on_disk[0], max(ahead)) == (len(content), len(content), at_once)


def test_a_copy_that_is_cut_off_leaves_nothing_in_a_folder(tmp_path: Path) -> None:
    def cut_off(_: int) -> None:
        raise OSError("gone")

    with pytest.raises(FileStoreError, match="gone"):
        file_store(tmp_path).put("a1", io.BytesIO(CONTENT), cut_off)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_has_left_of_a_file_is_removed_with_it(tmp_path: Path) -> None:
    (reader, writer), pid = os.pipe(), os.fork()
    if pid == 0:
        file_store(tmp_path).put("a1", io.BytesIO(CONTENT), lambda _: (os.write(writer, b"."), signal.pause()))
    os.read(reader, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.iterdir())) == 1

    file_store(tmp_path).remove("a1")

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileStoreError, match=str(tmp_path / "file" / "artifacts")):
        file_store(tmp_path / "file" / "artifacts").put("a1", io.BytesIO(b""), int)


def test_settings_name_the_place(tmp_path: Path) -> None:
    addresses = {"database_url": "postgresql://u@h/d", "redis_url": "redis://h"}
    assert load_settings({}, home=tmp_path).artifacts_place == str(tmp_path / "artifacts")
    assert load_settings({"HIGHNOON_ARTIFACTS_URL": "s3://b/f"}, **addresses).artifacts_place == "s3://b/f"
    with pytest.raises(FileStoreError, match="HIGHNOON_ARTIFACTS_URL"):
        store_of(load_settings({}, **addresses))
    wrong = {"HIGHNOON_ARTIFACTS_URL": "models", "HIGHNOON_ARTIFACTS_OPTIONS": "key=1"}
    with pytest.raises(InvalidInput) as refused:
        load_settings(wrong)
    assert "HIGHNOON_ARTIFACTS_URL: is no place for files (got 'models'). Write an absolute path" in str(refused.value)
    assert "HIGHNOON_ARTIFACTS_OPTIONS: must be a JSON object (got '***')" in str(refused.value)
