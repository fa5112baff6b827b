"""Which objectives a form or the API may start. An objective is code that runs on every worker.

HIGHNOON_OBJECTIVES lists patterns, as for the workers (`shared.objective.allow_list`), which judge again. Without it,
what has been started by the command line may be started again, and on one machine everything else in the same folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective.allow_list import below, exactly, matches, resolved
from highnoon.shared.views.studies import StudySummary


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveFilter:
    """Judges objectives by their names alone; opens no file."""

    patterns: tuple[str, ...]
    folders_too: bool
    """Whether a folder that a known study comes from is allowed as a whole."""

    def refusal(self, written: Mapping[str, Any], studies: Iterable[StudySummary]) -> Problem | None:
        """Why this objective may not be started; None when it may, or when validation will refuse it anyway."""
        objective, code_dir = written.get("objective"), written.get("code_dir")
        if not isinstance(objective, str) or not isinstance(code_dir, str | None):
            return None
        try:
            ref = ObjectiveRef.parse(objective)
        except InvalidInput:
            return None
        known = list(studies)
        if matches(resolved(ref, code_dir), self._patterns(known)):
            return None
        if not self.patterns and code_dir is None and ref.is_file and not Path(ref.where).is_absolute():
            message = "is a relative path, and there is no folder for it to start from"
            return Problem(key="objective", message=message, value=objective, hint="Write the folder below.")
        suggestions = self.suggestions(known)
        hint = nearest(objective, suggestions) if suggestions else ""
        how = "Start it by the command line once, or list it in HIGHNOON_OBJECTIVES."
        if self.patterns:
            how = "HIGHNOON_OBJECTIVES lists what may be started from here."
        message = "is not one that may be started here"
        return Problem(key="objective", message=message, value=objective, hint=f"{hint} {how}".strip())

    def suggestions(self, studies: Iterable[StudySummary]) -> list[str]:
        """Objectives that were used before, newest first."""
        return list(dict.fromkeys(str(study.spec["objective"]) for study in studies if study.spec))

    def folders(self, studies: Iterable[StudySummary]) -> list[str]:
        """Folders that objectives came from, newest first."""
        return list(dict.fromkeys(str(study.spec["code_dir"]) for study in studies if study.spec.get("code_dir")))

    def _patterns(self, studies: Sequence[StudySummary]) -> Iterable[str]:
        if self.patterns:
            return self.patterns
        exact = [exactly(resolved(_ref(study), study.spec.get("code_dir"))) for study in studies if study.spec]
        folders = [below(Path(folder)) for folder in self.folders(studies)]
        return [*exact, *(folders if self.folders_too else ())]


def _ref(study: StudySummary) -> ObjectiveRef:
    return ObjectiveRef.parse(study.spec["objective"])
