"""On one machine, whoever starts or submits a study wants its objective run there: its workers are told so."""

from __future__ import annotations

from pathlib import Path

from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective import local_allow_list as allowed_here
from highnoon.shared.runtime.settings import Settings


def allow_here(settings: Settings, spec: StudySpec | None) -> None:
    """Tells the workers of this machine what its person has started; without a study, that they wait for one."""
    if spec is None:
        allowed_here.allow(settings)
    else:
        allowed_here.allow(settings, spec.objective_ref, Path(spec.code_dir) if spec.code_dir else None)
