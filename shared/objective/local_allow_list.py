"""The objectives that this machine may run: HIGHNOON_OBJECTIVES, or what its own person has submitted here.

On one machine nobody should have to list what they start themselves. So `start` and `submit` without addresses note
what they were given in a file of the home, which only its owner can write, and the machine's own workers read it.
HIGHNOON_OBJECTIVES replaces the file. Judges nothing: `allowed` does.
"""

from __future__ import annotations

import os
from pathlib import Path

from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective.allow_list import below, exactly
from highnoon.shared.runtime.settings import Settings

FILE = "objectives"


def patterns_here(settings: Settings) -> tuple[str, ...] | None:
    """The patterns in force now; None when nobody has said anything."""
    if settings.objectives is not None:
        return settings.objectives
    try:
        return tuple(filter(None, (settings.home / FILE).read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError):
        return None


def allow(settings: Settings, ref: ObjectiveRef | None = None, code_dir: Path | None = None) -> None:
    """Notes a person's own objective: the folder that it comes from, and its module. Without one, that none is yet.

    Raises EmbeddedServiceError for a home that cannot be written.
    """
    path = settings.home / FILE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+", encoding="utf-8") as file:
            noted = file.read().splitlines()
            file.write("".join(f"{line}\n" for line in _patterns(ref, code_dir) if line not in noted))
    except (OSError, ValueError) as error:
        raise EmbeddedServiceError(f"cannot write {path} ({error}); set HIGHNOON_HOME") from error


def _patterns(ref: ObjectiveRef | None, code_dir: Path | None) -> list[str]:
    if ref is None:
        return []
    own = below(((code_dir or Path("/")) / ref.where).resolve().parent) if ref.is_file else exactly(ref.where)
    return list(dict.fromkeys([own, *([below(code_dir)] if code_dir else [])]))
