"""Bundles: the same bytes for the same files, a signature that only the key makes, and archives that want more."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from highnoon.shared.domain.errors import BundleRefused, InvalidInput
from highnoon.shared.objective import bundle as archive
from highnoon.shared.objective.bundle import ClusterKey, kept_key, key_of, pack, unpack
from highnoon.shared.runtime.settings import load_settings
from tests.archives import archived, member

LIMIT = 100_000


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "lib" / "__pycache__").mkdir(parents=True)
    (folder / "train.py").write_text("import lib")
    (folder / "lib" / "data.csv").write_text("1,2")
    (folder / "lib" / "__pycache__" / "x.pyc").write_text("")
    (folder / ".env").write_text("PASSWORD=x")
    return folder


def test_what_is_packed_is_unpacked_without_caches_and_hidden_files(code: Path, tmp_path: Path) -> None:
    unpack(pack(code, limit_bytes=LIMIT).archive, tmp_path / "new", limit_bytes=LIMIT)
    found = {str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert found == {"train.py", "lib/data.csv"}
    assert (tmp_path / "new" / "train.py").read_text() == "import lib"


def test_a_bundle_is_named_by_its_content_alone(code: Path, tmp_path: Path) -> None:
    first = pack(code, limit_bytes=LIMIT)
    other = tmp_path / "other"
    (other / "lib").mkdir(parents=True)
    (other / "lib" / "data.csv").write_text("1,2")
    (other / "train.py").write_text("import lib")
    (other / "train.py").chmod(0o700)
    assert pack(other, limit_bytes=LIMIT) == first
    (other / "train.py").write_text("import bil")
    assert pack(other, limit_bytes=LIMIT).digest != first.digest


def test_what_cannot_be_a_bundle_is_refused_with_a_remedy(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match=r"--bundle: holds 13 bytes, of 5 at most.*largest is train.py with 10"):
        pack(code, limit_bytes=5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no file"):
        pack(tmp_path / "empty", limit_bytes=LIMIT)
    (code / "link.py").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match=r"link.py is no plain file.*highnoonignore"):
        pack(code, limit_bytes=LIMIT)
    (code / ".highnoonignore").write_text("link.py\n")
    monkeypatch.setattr(archive, "MOST_FILES", 1)
    with pytest.raises(InvalidInput, match="holds 2 files, of 1 at most"):
        pack(code, limit_bytes=LIMIT)


@pytest.mark.parametrize(
    "wanted",
    [
        member("../out.py"),
        member("lib/../../out.py"),
        member("/out.py"),
        member("./out.py"),
        member("lib//out.py"),
        member(".."),
        member("link.py", kind=tarfile.SYMTYPE, target="/etc/passwd"),
        member("hard.py", kind=tarfile.LNKTYPE, target="../out.py"),
        member("device", kind=tarfile.CHRTYPE),
        member("pipe", kind=tarfile.FIFOTYPE),
        member("folder", kind=tarfile.DIRTYPE),
        member("holes", kind=tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda wanted: f"{wanted.name}-{wanted.type.decode()}",
)
def test_an_archive_that_wants_more_than_plain_files_writes_nothing(wanted: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="the bundle"):
        unpack(archived(member("good.py"), wanted), tmp_path / "in" / "new", limit_bytes=LIMIT)
    assert list(tmp_path.rglob("*")) == []


def test_what_is_larger_than_it_may_be_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleRefused, match="more than"):
        unpack(archived(member("a", b"x" * 60), member("b", b"x" * 60)), tmp_path / "new", limit_bytes=100)
    with pytest.raises(BundleRefused, match="twice"):
        unpack(archived(member("a"), member("a")), tmp_path / "new", limit_bytes=100)
    with pytest.raises(BundleRefused, match="as a file and as a folder"):
        unpack(archived(member("a/b/c"), member("a/b")), tmp_path / "new", limit_bytes=100)
    for name in ("x" * 256, "y/" * 1000 + "y"):
        with pytest.raises(BundleRefused, match="a path that is too long"):
            unpack(archived(member(name)), tmp_path / "new", limit_bytes=100)
    monkeypatch.setattr(archive, "MOST_FILES", 1)
    with pytest.raises(BundleRefused, match="more than 1 files"):
        unpack(archived(member("a"), member("b")), tmp_path / "new", limit_bytes=100)
    assert not (tmp_path / "new").exists()


def test_what_is_no_archive_or_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    whole = archived(member("a.py", b"x" * 5000))
    for broken in (b"", b"no archive at all", whole[:2000], b"\x1f\x8b" + whole):
        with pytest.raises(BundleRefused, match=r"can(not)? be read"):
            unpack(broken, tmp_path / "new", limit_bytes=LIMIT)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        packed.addfile(member("a.py"), io.BytesIO())
    with pytest.raises(BundleRefused):
        unpack(stream.getvalue(), tmp_path / "new", limit_bytes=LIMIT)


def test_only_the_key_that_signed_vouches() -> None:
    key, digest = ClusterKey("a-long-enough-secret"), "d" * 64
    signature = key.sign(digest)
    assert key.has_signed(digest, signature)
    assert not key.has_signed("e" * 64, signature)
    assert not ClusterKey("another-long-secret").has_signed(digest, signature)
    assert not key.has_signed(digest, "") and not key.has_signed(digest, "é" * 64)
    assert "secret" not in repr(key)


def test_a_home_makes_one_key_and_keeps_it_for_its_owner(tmp_path: Path) -> None:
    settings = load_settings({}, home=tmp_path / "home")
    assert key_of(settings) is None
    assert kept_key(settings) == kept_key(settings) == key_of(settings)
    assert (tmp_path / "home" / "cluster.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["cluster.key"]
    assert key_of(load_settings({"HIGHNOON_CLUSTER_KEY": "k" * 20}, home=tmp_path / "home")) == ClusterKey("k" * 20)


def test_a_short_key_is_refused_and_no_key_is_shown() -> None:
    with pytest.raises(InvalidInput, match="16 or more") as refused:
        load_settings({"HIGHNOON_CLUSTER_KEY": "hunter2"})
    assert "hunter2" not in str(refused.value)
    settings = load_settings({"HIGHNOON_CLUSTER_KEY": "hunter2-hunter2-hunter2"})
    assert "hunter2" not in str(settings.describe())
