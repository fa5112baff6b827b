"""What a trial saves is copied at once, within limits; wrong files are refused with every mistake."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from highnoon.shared.domain.artifact import MOST_ARTIFACTS, Artifact, artifacts_in
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.objective.attempt import run_attempt
from highnoon.shared.objective.staged_files import (
    SavedFile,
    SavingLimits,
    StagedFiles,
    opened_copy,
    pack,
    pack_copy,
    remove_copy,
    saved_of,
    unpack,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    path.write_bytes(b"weights")
    return path


@pytest.fixture(params=[True, False], ids=["3.12", "3.11.2"])
def has_filter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Python has filters of archives since 3.10.12 and 3.11.4. Debian 12 has 3.11.2."""
    extractall = tarfile.TarFile.extractall

    def without(self: tarfile.TarFile, path: str = ".", members: Any = None, *, numeric_owner: bool = False) -> None:
        extractall(self, path, members, numeric_owner=numeric_owner)

    if not request.param:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        monkeypatch.setattr(tarfile.TarFile, "extractall", without)
        # What newer ones do by default, these do not.
        monkeypatch.setattr(tarfile.TarFile, "extraction_filter", lambda self, member, path: member, raising=False)
    return bool(request.param)


def test_a_saved_file_keeps_what_it_was_when_it_was_saved(tmp_path: Path, model: Path) -> None:
    files = StagedFiles(tmp_path / "saved")
    first, second = files.copy(model), files.copy(str(model), "again.keras")
    model.unlink()

    assert (first.name, second.name) == ("model.keras", "again.keras")
    with opened_copy(tmp_path / "saved", first) as copy:
        assert copy.read() == b"weights"


@pytest.mark.parametrize(
    ("path", "name", "why"),
    [
        (None, None, r"path: must be the path of a file \(got None\)"),
        ("", None, "path: must be the path of a file"),
        ("nowhere.bin", None, "path: there is no such file"),
        (".", "folder", "path: is a folder, and an artifact is one file .*make_archive"),
        ("nowhere.bin", "../up", r"(?s)path: there is no such file.*name: must be the name of a file"),
        ("nowhere.bin", 3, "name: must be text"),
        ("nowhere.bin", "\u7814" * 81, "name: must be text of 1 to 240 bytes"),
        ("nowhere.bin", ".hidden", "name: must be the name of a file"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_every_mistake(path: Any, name: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=why):
        StagedFiles(tmp_path / "saved").copy(path, name)
    assert not (tmp_path / "saved").exists()


def test_files_of_a_trial_are_bounded_in_size_and_number(tmp_path: Path, model: Path) -> None:
    files = StagedFiles(tmp_path / "saved", SavingLimits(artifact_bytes=15))
    files.copy(model, "a")
    files.copy(model, "b")
    files.copy(model, "b")  # in place of the earlier one
    with pytest.raises(InvalidInput, match=r"has 7 bytes, and all files of a trial may have 15.*ARTIFACT_LIMIT_BYTES"):
        files.copy(model, "c")

    many = StagedFiles(tmp_path / "many")
    for number in range(MOST_ARTIFACTS):
        many.copy(model, f"{number}")
    many.copy(model, "7")
    with pytest.raises(InvalidInput, match="a trial keeps 100 files"):
        many.copy(model, "one more")


def test_a_checkpoint_is_packed_once_an_interval_is_over_and_it_has_changed(tmp_path: Path, has_filter: bool) -> None:
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "step-1").mkdir(parents=True)
    (checkpoints / "step-1" / "weights").write_bytes(b"1")
    (checkpoints / "latest").symlink_to("step-1")

    assert StagedFiles(tmp_path / "saved").pack_if_due(checkpoints) is None
    assert StagedFiles(tmp_path / "saved", SavingLimits(checkpoint_s=60.0)).pack_if_due(checkpoints) is None
    files = StagedFiles(tmp_path / "saved", SavingLimits(checkpoint_s=0.0))
    packed = files.pack_if_due(checkpoints)
    assert packed == SavedFile(file="1", name=None)
    assert files.pack_if_due(checkpoints) is None
    (checkpoints / "step-1" / "weights").write_bytes(b"22")
    assert files.pack_if_due(checkpoints) == SavedFile(file="2", name=None)

    with opened_copy(tmp_path / "saved", packed) as archive:
        unpack(archive, tmp_path / "elsewhere" / "attempt-2", int)
    assert (tmp_path / "elsewhere" / "attempt-2" / "latest" / "weights").read_bytes() == b"1"


def test_links_within_a_checkpoint_lead_to_its_copy_and_what_leads_out_is_left_out(
    tmp_path: Path, has_filter: bool
) -> None:
    folder, target = tmp_path / "attempt-1", tmp_path / "elsewhere" / "attempt-2"
    (folder / "ckpt-5").mkdir(parents=True)
    (folder / "ckpt-5" / "weights").write_bytes(b"5")
    (folder / "latest").symlink_to(folder / "ckpt-5")
    (folder / "ckpt-5" / "newest").symlink_to(folder / "ckpt-5" / "weights")
    (folder / "data").symlink_to("/etc")
    (folder / "..data").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    pack(folder, tmp_path / "packed")
    shutil.rmtree(folder)

    with (tmp_path / "packed").open("rb") as archive:
        unpack(archive, target, int)

    assert sorted(path.name for path in target.iterdir()) == ["ckpt-5", "latest"]
    assert (target / "latest" / "newest").read_bytes() == b"5"


def test_members_of_an_archive_that_lead_out_of_its_folder_are_left_out(tmp_path: Path, has_filter: bool) -> None:
    pipe = tarfile.TarInfo("pipe")
    pipe.type = tarfile.FIFOTYPE
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    with tarfile.open(tmp_path / "packed", "w") as packed:
        for member in (tarfile.TarInfo("../above"), link, tarfile.TarInfo("link/through"), pipe):
            packed.addfile(member)

    with (tmp_path / "packed").open("rb") as archive:
        unpack(archive, tmp_path / "target", int)

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        *("packed", "target", "target/link", "target/link/through")
    ]
    assert (tmp_path / "target" / "link").is_dir() and not (tmp_path / "target" / "link").is_symlink()


def linked(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mtime = kind, target, 1_000_000_000
    return made


def directory(name: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode = tarfile.DIRTYPE, 0o755
    return made


def test_no_member_of_an_archive_reaches_what_is_outside(tmp_path: Path, has_filter: bool) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not of this trial")
    inode = outside.stat().st_ino
    program = tarfile.TarInfo("program")
    program.mode, program.uid, program.uname, program.mtime = 0o6777, 12345, "daemon", 1_000_000_000
    members = [
        program,
        linked("same", "program", tarfile.LNKTYPE),
        tarfile.TarInfo(str(outside)),
        tarfile.TarInfo("a/../../outside"),
        *(linked(f"link-{index}", target) for index, target in enumerate(("..", "../outside", str(outside), "/"))),
        linked("hard-1", "../outside", tarfile.LNKTYPE),
        linked("hard-2", str(outside), tarfile.LNKTYPE),
        linked("device", "", tarfile.CHRTYPE),
        # Links that lead out together, and what would be written through them
        linked("deep/in/side/up", "../../.."),
        linked("out", "deep/in/side/up/../outside"),
        tarfile.TarInfo("out"),
        linked("here", "."),
        linked("deep/in/above", "../../.."),
        tarfile.TarInfo("deep/in/above/outside"),
        # `..` behind a link's name: for the kernel it is what is above that link's target
        linked("d1/d2/up", "../.."),
        tarfile.TarInfo("d1/d2/up/../../evil"),
        *(directory("x"), directory("x/y"), linked("a-link", "x/y"), linked("x/b", "../outside")),
        *(tarfile.TarInfo("outside"), tarfile.TarInfo("b")),
        linked("hard-3", "a-link/../b", tarfile.LNKTYPE),
    ]
    with tarfile.open(tmp_path / "packed", "w") as packed:
        for member in members:
            packed.addfile(member)

    with (tmp_path / "packed").open("rb") as archive:
        unpack(archive, tmp_path / "target", int)

    assert outside.read_text() == "not of this trial" and outside.stat().st_ino == inode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "packed", "target"]
    root = (tmp_path / "target").resolve()
    assert all(path.resolve().is_relative_to(root) for path in root.rglob("*"))
    found = (root / "program").stat()
    assert (found.st_mode & 0o7022, found.st_uid, found.st_mtime) == (0, os.getuid(), 1_000_000_000)
    assert found.st_ino == (root / "same").stat().st_ino


def test_hard_link_to_a_link_is_left_out_where_it_would_lead_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "packed", "w") as packed:
        for member in (linked("a/b/link", "../../file"), linked("moved", "a/b/link", tarfile.LNKTYPE)):
            packed.addfile(member)

    with (tmp_path / "packed").open("rb") as archive:
        unpack(archive, tmp_path / "target", int)

    assert [path.name for path in (tmp_path / "target").iterdir()] == ["a"]


def test_an_archive_that_is_cut_off_makes_no_folder(tmp_path: Path, model: Path) -> None:
    pack(model.parent, tmp_path.parent / f"{tmp_path.name}-packed")
    packed = (tmp_path.parent / f"{tmp_path.name}-packed").read_bytes()
    with pytest.raises(tarfile.TarError):
        unpack(io.BytesIO(packed[:700]), tmp_path / "target", int)
    assert not (tmp_path / "target").exists() and not list(tmp_path.glob(".fetching*"))


def test_a_copy_that_is_a_link_is_not_followed(tmp_path: Path, model: Path) -> None:
    (tmp_path / "1").symlink_to(model)
    (tmp_path / "2").mkdir()
    for file in ("1", "2", "3"):
        with pytest.raises(OSError):
            opened_copy(tmp_path, SavedFile(file=file, name="x"))


@pytest.mark.parametrize("part", ["tmp", "tmp/saved"])
def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path, part: str) -> None:
    # Given a trial that has replaced its own folder by a link to another trial's folder
    others, mine = tmp_path / "others", tmp_path / "mine" / "tmp" / "saved"
    for folder in (others, others / "saved"):
        folder.mkdir()
        (folder / "1").write_bytes(b"not yours")
    link = tmp_path / "mine" / part
    link.parent.mkdir(parents=True)
    link.symlink_to(others)
    before = sorted(tmp_path.rglob("*"))

    # Then nothing of that one's is read, removed or written
    for use in (opened_copy, remove_copy, lambda folder, saved: pack_copy(tmp_path, folder, saved, int)):
        with pytest.raises(OSError):
            use(mine, SavedFile(file="1", name="x"))
    assert sorted(tmp_path.rglob("*")) == before and (others / "1").read_bytes() == b"not yours"


def test_an_ended_trials_checkpoint_is_packed_through_no_link_of_it(tmp_path: Path, model: Path) -> None:
    checkpoints, saved = tmp_path / "attempt-1", tmp_path / "work" / "tmp" / "saved"
    checkpoints.mkdir()
    (checkpoints / "state").write_text("as the trial has chosen")
    saved.mkdir(parents=True)
    (saved / "0").symlink_to(model)
    packed = SavedFile(file="0", name=None)

    pack_copy(checkpoints, saved, packed, int)

    assert model.read_bytes() == b"weights"
    with opened_copy(saved, packed) as archive:
        unpack(archive, tmp_path / "elsewhere", int)
    assert (tmp_path / "elsewhere" / "state").read_text() == "as the trial has chosen"
    remove_copy(saved, packed)
    assert list(saved.iterdir()) == []


@pytest.mark.parametrize(
    "event",
    [
        {"file": "../1", "name": "a"},
        {"file": "1", "name": "../a"},
        {"file": 1, "name": "a"},
        {"file": "1", "name": 7},
        {"name": "a"},
        {"file": "1"},
    ],
)
def test_a_wrong_event_about_a_file_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        saved_of(event)


def test_a_trial_that_says_when_it_saved_is_packed_then_only(tmp_path: Path) -> None:
    from highnoon import checkpoint_dir, checkpoint_saved, report, save_artifact

    class Channel:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def report(self, value: float, step: int) -> None:
            self.calls.append(step)

        def save_file(self, saved: SavedFile) -> None:
            self.calls.append(saved.name or "checkpoint")

    def objective(params: Any) -> float:
        state = checkpoint_dir() / "state"
        for step in range(4):
            state.write_text("x" * step)
            report(0.5, step)
            if step == 1:
                checkpoint_saved()
        save_artifact(state)
        return 0.5

    channel: Any = Channel()
    files = StagedFiles(tmp_path / "saved", SavingLimits(checkpoint_s=0.0))
    outcome = run_attempt(objective, {}, channel, checkpoints=tmp_path / "checkpoints", files=files)
    assert outcome.value == 0.5, outcome
    assert channel.calls == [0, "checkpoint", 1, "checkpoint", 2, 3, "state"]


def test_attributes_describe_artifacts_as_optuna_does_and_unusable_ones_are_left_out() -> None:
    mine = Artifact.of_file("0a1b", "plot.png", size_bytes=3, sha256="ab")
    optunas = '{"artifact_id": "c1", "filename": "folder/a.txt", "mimetype": "text/plain", "encoding": null}'
    long = "\u7814" * 100
    attrs = {
        **dict([mine.attr]),
        "artifacts:c1": optunas,
        "artifacts:long": json.dumps({"artifact_id": "c0", "filename": long}),
        "artifacts:bad": '{"artifact_id": "../x", "filename": "a"}',
        "artifacts:worse": "[]",
        "artifacts:worst": 3,
        "constraints:memory": 1.0,
    }
    stored = {artifact.id: artifact for artifact in artifacts_in(attrs)}
    assert stored.pop("c0").name == long, "an earlier version took it"
    assert [*stored.values()] == [Artifact(id="c1", name="a.txt", mimetype="text/plain"), mine]
    assert mine.mimetype == "image/png"


def test_packing_and_unpacking_of_one_large_file_reports_its_progress(tmp_path: Path) -> None:
    checkpoints, saved, packed = (
        tmp_path / "attempt-1",
        tmp_path / "work" / "tmp" / "saved",
        SavedFile(file="0", name=None),
    )
    checkpoints.mkdir()
    (checkpoints / "weights").write_bytes(bytes(5_000_000))
    written: list[int] = []
    read: list[int] = []

    pack_copy(checkpoints, saved, packed, written.append)
    with opened_copy(saved, packed) as archive:
        unpack(archive, tmp_path / "elsewhere", read.append)

    for moved in (written, read):
        assert sum(moved) > 5_000_000 and max(moved) < 1_000_000
    assert (tmp_path / "elsewhere" / "weights").stat().st_size == 5_000_000
