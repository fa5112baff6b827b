"""Bundles are unpacked whole, also by containers that share the folder and have the same process numbers."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from highnoon.shared.objective.bundle import ClusterKey, pack
from highnoon.shared.runtime.settings import load_settings
from highnoon.workers.code.bundle_cache import BundleCache

KEY = "k" * 64


@pytest.fixture
def cache(tmp_path: Path) -> tuple[BundleCache, str]:
    """A supervisor's, and the digest of a bundle in its ledger."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("def objective(params): ...")
    bundle = pack(tmp_path / "code", limit_bytes=100_000)
    signature = ClusterKey(KEY).sign(bundle.digest)
    row = SimpleNamespace(signature=signature, size_bytes=len(bundle.archive))
    ledger = SimpleNamespace(find=lambda _: row, archive=lambda _: bundle.archive)
    settings = load_settings({}, home=tmp_path, cluster_key=KEY)
    return BundleCache(settings, cast(Any, ledger)), bundle.digest


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1], ids=["as ours", "of no process here"])
def test_draft_that_another_container_unpacks_is_left_alone(
    tmp_path: Path, cache: tuple[BundleCache, str], pid: int
) -> None:
    bundles, digest = cache
    drafts = [tmp_path / "bundles" / name for name in (f".{digest}.{pid}", ".draft-of-another")]
    for draft in drafts:
        draft.mkdir(parents=True)
        (draft / "half.py").touch()

    folder = bundles.folder_of(digest)

    assert [path.name for path in folder.iterdir()] == ["train.py"]
    assert all((draft / "half.py").exists() for draft in drafts)


def test_draft_of_a_killed_process_is_removed_in_time(tmp_path: Path, cache: tuple[BundleCache, str]) -> None:
    bundles, digest = cache
    drafts = [tmp_path / "bundles" / name for name in (".digest-of-another-bundle.4711", ".draft-old")]
    for draft in drafts:
        draft.mkdir(parents=True)
        os.utime(draft, (0, 0))
    bundles.folder_of(digest)
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [digest]
