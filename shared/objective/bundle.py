"""A folder as a tar archive, and the cluster key that signs its name.

The archive has the same bytes for the same files, wherever it is made, and is unpacked with distrust. Who holds the key
may decide what the workers run: HIGHNOON_CLUSTER_KEY, or a key that an embedded home makes for itself, in a file for
its owner alone.

Not compressed: PostgreSQL compresses large values by itself, other versions of zlib write other bytes, and an archive
without compression cannot grow when it is unpacked. Nothing is extracted by `tarfile`: plain files are copied out, and
everything else is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from highnoon.shared.domain.errors import BundleRefused, InvalidInput
from highnoon.shared.objective.source_tree import IGNORE_FILE, TreeFile, files_below
from highnoon.shared.runtime.secret_files import kept_token
from highnoon.shared.runtime.settings import Settings

MOST_FILES = 2_000
_MOST_PATH_BYTES = 2_000
"""Below the folder of a worker's bundles; the kernel takes 4,095 in all, and 255 for each part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An archive and its digest, which is its name."""

    archive: bytes
    digest: str


def digest_of(archive: bytes) -> str:
    """The name of a bundle."""
    return hashlib.sha256(archive).hexdigest()


def pack(folder: Path, *, limit_bytes: int) -> Bundle:
    """The files below `folder`, as plain as they are. Raises InvalidInput: too large, too many, links, unreadable."""
    sizes = _sizes(folder)
    _refuse_beyond(folder, sizes, limit_bytes)
    stream = io.BytesIO()
    try:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, path in sorted((file.name, file.path) for file in sizes):
                content = Path(path).read_bytes()
                member = tarfile.TarInfo(
                    name
                )  # without times and owners, which would give it another name on every machine
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    except (OSError, ValueError) as error:
        raise _refused(folder, f"cannot be packed ({error})") from None
    packed = stream.getvalue()
    return Bundle(archive=packed, digest=digest_of(packed))


def _sizes(folder: Path) -> dict[TreeFile, int]:
    sizes = {}
    try:
        for file in files_below(folder):
            if file.is_link or not Path(file.path).is_file():
                hint = f"A bundle holds plain files: put the file there, or name it in {IGNORE_FILE}."
                raise _refused(folder, f"{file.name} is no plain file", hint)
            sizes[file] = Path(file.path).stat().st_size
    except OSError as error:
        raise _refused(folder, f"cannot be read ({error})") from None
    return sizes


def _refuse_beyond(folder: Path, sizes: dict[TreeFile, int], limit_bytes: int) -> None:
    if not sizes:
        raise _refused(folder, "holds no file")
    if len(sizes) > MOST_FILES:
        raise _refused(folder, f"holds {len(sizes):,} files, of {MOST_FILES:,} at most", f"{IGNORE_FILE} leaves out.")
    if (size := sum(sizes.values())) > limit_bytes:
        largest = max(sizes, key=lambda file: sizes[file])
        hint = (
            f"The largest is {largest.name} with {sizes[largest]:,} bytes: name it in {IGNORE_FILE}, "
            "or raise HIGHNOON_BUNDLE_LIMIT_BYTES here and on the workers."
        )
        raise _refused(folder, f"holds {size:,} bytes, of {limit_bytes:,} at most", hint)


def _refused(folder: Path, message: str, hint: str = "") -> InvalidInput:
    return InvalidInput.of("bundle", "--bundle", message, value=str(folder), hint=hint)


def unpack(archive: bytes, folder: Path, *, limit_bytes: int) -> None:
    """Writes the files of an archive into `folder`, which is new. Raises BundleRefused before anything is written.

    Absolute paths, `..`, links, devices, sparse files and names that come twice are refused, as is what grows.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as packed:
            members = list(_judged(packed, limit_bytes))
            folders = {str(parent) for member in members for parent in PurePosixPath(member.name).parents}
            if both := folders & {member.name for member in members}:
                raise BundleRefused(f"the bundle holds {min(both)[:200]!r} as a file and as a folder")
            for member in members:
                _copy(packed, member, folder / member.name)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise BundleRefused(f"the bundle is no archive that can be read ({error})") from None


def _judged(packed: tarfile.TarFile, limit_bytes: int) -> Iterator[tarfile.TarInfo]:
    seen: set[str] = set()
    size = 0
    for member in packed:
        flaw = _flaw_in(member)
        if flaw:
            raise BundleRefused(f"the bundle holds {member.name[:200]!r}, {flaw}")
        if member.name in seen:
            raise BundleRefused(f"the bundle holds {member.name[:200]!r} twice")
        seen.add(member.name)
        size += member.size
        if len(seen) > MOST_FILES or size > limit_bytes:
            raise BundleRefused(f"the bundle holds more than {MOST_FILES:,} files or {limit_bytes:,} bytes")
        yield member


def _flaw_in(member: tarfile.TarInfo) -> str:
    if not member.isreg() or member.issparse():
        return "which is no plain file"
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or str(path) != member.name or not path.parts or "\0" in member.name:
        return "a path that leads out of it"
    if len(os.fsencode(member.name)) > _MOST_PATH_BYTES or any(len(os.fsencode(part)) > 255 for part in path.parts):
        return "a path that is too long"
    return ""


def _copy(packed: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = packed.extractfile(member)
    assert content is not None, "only plain files come here"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content.read())
        file.flush()
        os.fsync(file.fileno())


KEY_FILE = "cluster.key"
_PURPOSE = b"highnoon bundle "


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """Never shown, also not by repr."""

    secret: str = field(repr=False)

    def sign(self, digest: str) -> str:
        """The signature of a bundle's name."""
        return hmac.new(self.secret.encode(), _PURPOSE + digest.encode(), hashlib.sha256).hexdigest()

    def has_signed(self, digest: str, signature: str) -> bool:
        """Whether the holder of this key has signed that bundle."""
        return hmac.compare_digest(self.sign(digest).encode(), signature.encode())


def key_of(settings: Settings) -> ClusterKey | None:
    """The key of the settings, or of the file in the home; None when there is neither."""
    if settings.cluster_key is not None:
        return ClusterKey(settings.cluster_key)
    try:
        return ClusterKey((settings.home / KEY_FILE).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None


def kept_key(settings: Settings) -> ClusterKey:
    """As `key_of`; makes one and keeps it in the home when there is none. Raises InvalidInput."""
    known = key_of(settings)
    return known or ClusterKey(kept_token(settings.home / KEY_FILE, remedy="Set HIGHNOON_HOME.")[0])
