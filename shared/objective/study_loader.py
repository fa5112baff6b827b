"""Studies from files and tables: parsed, validated, and their objective looked for, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.study import StudySpec, validate
from highnoon.shared.domain.study_file import read_table
from highnoon.shared.objective.reference import check


def load_study_file(path: Path, overrides: Mapping[str, object] | None = None) -> StudySpec:
    """The study in a TOML, JSON or YAML file; `overrides` win over its keys. Raises InvalidInput with all problems."""
    written = {**read_table(path), **(overrides or {})}
    return build_spec(written, source=str(path), code_dir=path.absolute().parent.resolve())


def build_spec(data: Mapping[str, Any], source: str, code_dir: Path | None = None) -> StudySpec:
    """The study that `data` describes; relative paths start from `code_dir`. Raises InvalidInput with all problems."""
    if not isinstance(data, Mapping):
        raise InvalidInput(source, [Problem(key="study", message="must be a table of keys and values", value=data)])
    written = _with_code_dir(data, code_dir)
    spec, problems = validate(written)
    problems += _objective_problems(written)
    if spec is None or problems:
        raise InvalidInput(source, problems)
    return spec


def _with_code_dir(data: Mapping[str, Any], code_dir: Path | None) -> Mapping[str, Any]:
    """`code_dir` as the study may name it itself, relative to where it is written."""
    named = data.get("code_dir", ".")
    if code_dir is None or not isinstance(named, str):
        return data
    return {**data, "code_dir": str((code_dir / named).absolute())}


def _objective_problems(written: Mapping[str, Any]) -> list[Problem]:
    """Checked also where other keys are wrong, so that all problems are reported at once."""
    objective, code_dir = written.get("objective"), written.get("code_dir")
    if not isinstance(objective, str) or not isinstance(code_dir, str | None):
        return []
    try:
        ref = ObjectiveRef.parse(objective)
    except InvalidInput:
        return []  # validation has said so
    problem = check(ref, Path(code_dir) if code_dir else None)
    return [problem] if problem else []
