"""`submit --bundle`: the study's code packed, signed and kept in the ledger before the study is submitted.

Dying in between leaves a bundle that no study names; the next try finds it there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from coordinator.access import is_embedded
from shared.access import Access
from shared.bundles import Bundle, ClusterKey, kept_key, key_of, pack
from shared.errors import InvalidInput, Problem
from shared.ledger import Bundles
from shared.logs import event
from shared.settings import Settings
from shared.study import StudySpec, load_study_file

_log = logging.getLogger("coordinator.bundling")


def read_bundled(
    study_file: Path, overrides: Mapping[str, object], folder: Path, settings: Settings
) -> tuple[StudySpec, Bundle]:
    """The study whose code is `folder`, and that folder packed. Raises InvalidInput for what cannot work."""
    if not folder.is_dir():
        raise _mistake("is no folder", folder)
    root = folder.resolve()
    spec = load_study_file(study_file, {**overrides, "code_dir": str(root)})
    where = Path(spec.objective_ref.where)
    if spec.objective_ref.is_file and not (root / where).resolve().is_relative_to(root):
        raise _mistake(f"does not hold the objective {where}", folder, "Write it relative to the bundle's folder.")
    bundle = pack(root, limit_bytes=settings.bundle_limit_bytes)
    # An absolute path would name a file of this machine; in the bundle it stands elsewhere on each worker.
    if spec.objective_ref.is_file and where.is_absolute():
        inside = where.resolve().relative_to(root)
        spec = spec.model_copy(update={"objective": f"{inside}:{spec.objective_ref.function}"})
    return spec.model_copy(update={"bundle": bundle.digest}), bundle


def keep(bundle: Bundle, access: Access, settings: Settings) -> None:
    """Signs a bundle and keeps it in the ledger. Raises InvalidInput where there is no key to sign with."""
    Bundles(access.database).put(bundle.digest, bundle.archive, _key(settings).sign(bundle.digest))
    event(_log, "bundle", digest=bundle.digest[:12], size_bytes=len(bundle.archive))


def _key(settings: Settings) -> ClusterKey:
    key = kept_key(settings) if is_embedded(settings) else key_of(settings)
    if key is None:
        hint = "A bundle is signed with it, and the workers verify it: set the same one here and there."
        raise InvalidInput("environment", [Problem(key="HIGHNOON_CLUSTER_KEY", message="is not set", hint=hint)])
    return key


def _mistake(message: str, folder: Path, hint: str = "") -> InvalidInput:
    return InvalidInput("command line", [Problem(key="--bundle", message=message, value=str(folder), hint=hint)])
