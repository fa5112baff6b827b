"""The bundles of a node: fetched from the ledger, verified, and unpacked once under its home.

    home/bundles/<digest>/    whole and verified: it appears by a rename

Several supervisors may unpack the same one at once; the first rename wins and the others are thrown away.
"""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from highnoon.shared.domain.errors import BundleRefused
from highnoon.shared.objective.bundle import digest_of, key_of, unpack
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.bundles import Bundles

_log = logging.getLogger("highnoon.workers.code.bundle_cache")

_DRAFT_S = 3600.0
"""Unpacking takes seconds."""


class BundleCache:
    """One supervisor's way to the bundles of its node."""

    def __init__(self, settings: Settings, bundles: Bundles) -> None:
        self._settings = settings
        self._folder = settings.home / "bundles"
        self._bundles = bundles

    def folder_of(self, digest: str) -> Path:
        """The folder with the bundle's files. Raises BundleRefused, ServiceUnavailable, and OSError for a full disk."""
        folder = self._folder / digest
        if not folder.is_dir():
            self._unpack(self._verified(digest), folder)
            event(_log, "bundle_unpacked", digest=digest[:12])
        return folder

    def _verified(self, digest: str) -> bytes:
        """The archive, once its signature is known to be good and its content to be what was signed."""
        key = key_of(self._settings)
        if key is None:
            raise BundleRefused("this worker has no HIGHNOON_CLUSTER_KEY to verify bundles with")
        row = self._bundles.find(digest)
        if row is None:
            raise BundleRefused(f"there is no bundle {digest[:12]} in the ledger: submit the study with --bundle again")
        if not key.has_signed(digest, row.signature):
            raise BundleRefused(
                f"bundle {digest[:12]} is not signed with the key of this worker: "
                "submit it with the same HIGHNOON_CLUSTER_KEY"
            )
        limit_bytes = self._archive_limit_bytes()
        if row.size_bytes > limit_bytes:
            raise BundleRefused(f"bundle {digest[:12]} is larger than HIGHNOON_BUNDLE_LIMIT_BYTES of this worker")
        archive = self._bundles.archive(digest)
        if digest_of(archive) != digest:
            raise BundleRefused(f"bundle {digest[:12]} was changed after it was signed")
        return archive

    def _archive_limit_bytes(self) -> int:
        """With the headers and padding of tar around as many files as a bundle may hold."""
        return 2 * self._settings.bundle_limit_bytes + 10_000_000

    def _unpack(self, archive: bytes, folder: Path) -> None:
        draft = self._folder / f".draft-{uuid4().hex}"
        self._remove_old_drafts()
        draft.mkdir(mode=0o700, parents=True)
        try:
            unpack(archive, draft, limit_bytes=self._settings.bundle_limit_bytes)
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _remove_old_drafts(self) -> None:
        """Of processes that were killed while they unpacked.

        By age: containers that share the folder have separate process namespaces.
        """
        for draft in self._folder.glob(".*"):
            with suppress(FileNotFoundError):
                if time.time() - draft.stat().st_mtime > _DRAFT_S:
                    shutil.rmtree(draft, ignore_errors=True)
