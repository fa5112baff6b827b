"""The code of a study that is about to be submitted: a signed bundle in the ledger, or a permission on this machine.

A process that dies in between leaves a bundle that no study names, and the next try finds it there, or a later one
removes it. In a cluster without a bundle the code is there already, and each worker's own list decides whether it runs.
"""

from __future__ import annotations

import logging
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.allow_list import allow_study
from highnoon.shared.objective.bundle import Bundle, ClusterKey, kept_key, key_of, pack
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.access import Access
from highnoon.shared.store.bundles import Bundles

_log = logging.getLogger(__name__)


def packed(spec: StudySpec, root: Path, settings: Settings, *, key: str) -> tuple[StudySpec, Bundle]:
    """The study with `root` as its code, and that folder packed. Raises InvalidInput under `key` for what cannot be."""
    problems = [
        Problem(key=key, message=f"does not hold the {kind} {(root / ref.where).resolve()}", value=str(root))
        for kind, ref in {"objective": spec.objective_ref, **spec.plugins}.items()
        if ref.is_file and not (root / ref.where).resolve().is_relative_to(root)
    ]
    if problems:
        raise InvalidInput("bundle", problems)
    bundle = pack(root, limit_bytes=settings.bundle_limit_bytes)
    plugins = {
        kind: getattr(spec, kind).model_copy(update={"name": _inside(ref, root)}) for kind, ref in spec.plugins.items()
    }
    objective = _inside(spec.objective_ref, root)
    return spec.model_copy(update={"bundle": bundle.digest, "objective": objective, **plugins}), bundle


def upload_code(
    spec: StudySpec, bundle: Bundle | None, access: Access, settings: Settings, *, is_embedded: bool
) -> None:
    """Raises InvalidInput for a bundle without a key to sign it, EmbeddedServiceError for a home that is read only."""
    if bundle is not None:
        bundles = Bundles(access.database)
        bundles.put(bundle.digest, bundle.archive, _key(settings, is_embedded).sign(bundle.digest))
        event(_log, "bundle", digest=bundle.digest[:12], size_bytes=len(bundle.archive), dropped=bundles.drop_unused())
    elif is_embedded:
        allow_study(settings, spec)


def _inside(ref: ObjectiveRef, root: Path) -> str:
    """Relative to the bundle: an absolute path would name a file of this machine."""
    return f"{(root / ref.where).resolve().relative_to(root)}:{ref.function}" if ref.is_file else str(ref)


def _key(settings: Settings, is_embedded: bool) -> ClusterKey:
    key = kept_key(settings) if is_embedded else key_of(settings)
    if key is None:
        hint = "A bundle is signed with it, and the workers verify it: set the same one here and there."
        raise InvalidInput.of("environment", "HIGHNOON_CLUSTER_KEY", "is not set", hint=hint)
    return key
