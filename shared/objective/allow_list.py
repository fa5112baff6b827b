"""Which objectives may run: the patterns of HIGHNOON_OBJECTIVES, and what they are compared with.

An objective is code, and everyone who can write to the database can name one. So a worker runs only what one of its
patterns covers. A pattern is a file (`/srv/objectives/*.py`) or a module (`recipes.*`), and may name the function as
well (`recipes.*:objective`); `*` stands for any text, slashes and dots included. Imports no user code.

On one machine nothing need be listed: `start` and `submit` without addresses note what they were given in a file of the
home, which only its owner can write, and the machine's own workers read it. HIGHNOON_OBJECTIVES replaces that file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective.reference import brought_module, own_module, source_of
from highnoon.shared.runtime.settings import Settings

if TYPE_CHECKING:
    from highnoon.shared.domain.study import StudySpec  # an agent needs nothing else of it

_WILD = "*?["
_FILE = "objectives"


def resolved(ref: ObjectiveRef, code_dir: str | Path | None) -> str:
    """The objective as patterns see it: a file by its whole path, without `..` and links; a module as it is."""
    return _name((Path(code_dir or "/") / ref.where).resolve(), ref) if ref.is_file else str(ref)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern covers what `resolved` gave."""
    return any(fnmatchcase(name, _whole(pattern)) for pattern in patterns)


def exactly(text: str) -> str:
    """The pattern for this very text: a name may hold what patterns take for wild cards."""
    return "".join(f"[{sign}]" if sign in _WILD else sign for sign in text)


def below(folder: Path) -> str:
    """The pattern for every file of a folder."""
    return f"{exactly(str(folder.resolve())).rstrip('/')}/*.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowList:
    """Judges where an objective would really be loaded from, whatever the study calls it."""

    patterns: tuple[str, ...]

    def refusal(self, ref: ObjectiveRef, code_dir: Path | None) -> str | None:
        """Why this objective must not be run here, for people; None when it may. Imports nothing."""
        for names in _origins(ref, code_dir):
            if not any(matches(name, self.patterns) for name in names):
                return (
                    f"{names[-1]} is none of the objectives that this worker may run "
                    f"({', '.join(self.patterns) or 'none at all'}); list it in HIGHNOON_OBJECTIVES of the worker, "
                    "or submit the study with --bundle"
                )
        return None


def _origins(ref: ObjectiveRef, code_dir: Path | None) -> list[tuple[str, ...]]:
    """The names of each place that the objective may come from: one of the names must be covered, for every place.

    A module of the interpreter's own path goes by its name or its file; one that the study's folder brings goes by
    its file alone, or a study could bring any code under a name that is covered.
    """
    if ref.is_file:
        return [(resolved(ref, code_dir),)]
    own, brought = own_module(ref), brought_module(ref, code_dir)
    mine = _named(source_of(own), ref) if own else ()
    theirs = _named(source_of(brought), ref) if brought else ()
    places = [(*mine, str(ref))] if own or not brought else []
    if brought and theirs != mine:
        places.append(theirs or (f"{ref} without source",))
    return places


def _named(file: Path | None, ref: ObjectiveRef) -> tuple[str, ...]:
    return () if file is None else (_name(file.resolve(), ref),)


def _name(file: Path, ref: ObjectiveRef) -> str:
    return f"{file}:{ref.function}"


def _whole(pattern: str) -> str:
    """With its function, and with the folder that it begins with resolved by the kernel."""
    where, colon, function = pattern.rpartition(":")
    if not colon or "/" in function:
        where, function = pattern, "*"
    if where.startswith("/"):
        fixed = where[: min((where.find(sign) for sign in _WILD if sign in where), default=len(where))]
        folder = fixed.rpartition("/")[0] or "/"
        where = f"{str(Path(folder).resolve()).rstrip('/')}{where[len(folder.rstrip('/')) :]}"
    return f"{where}:{function}"


def patterns_here(settings: Settings) -> tuple[str, ...] | None:
    """The patterns in force now; None where none are set."""
    if settings.objectives is not None:
        return settings.objectives
    try:
        return tuple(filter(None, (settings.home / _FILE).read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError):
        return None


def allow(settings: Settings, ref: ObjectiveRef | None = None, code_dir: Path | None = None) -> None:
    """Notes a person's own objective: the folder that it comes from, and its module. Without one, that none is yet.

    Raises EmbeddedServiceError for a home that cannot be written.
    """
    path = settings.home / _FILE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+", encoding="utf-8") as file:
            noted = file.read().splitlines()
            file.write("".join(f"{line}\n" for line in _patterns(ref, code_dir) if line not in noted))
    except (OSError, ValueError) as error:
        raise EmbeddedServiceError(f"cannot write {path} ({error}); set HIGHNOON_HOME") from error


def allow_study(settings: Settings, spec: StudySpec | None) -> None:
    """Notes the objective of a study that a person starts or submits here. Raises EmbeddedServiceError."""
    if spec is None:
        allow(settings)
    else:
        for ref in (spec.objective_ref, *spec.plugins.values()):
            allow(settings, ref, Path(spec.code_dir) if spec.code_dir else None)


def _patterns(ref: ObjectiveRef | None, code_dir: Path | None) -> list[str]:
    if ref is None:
        return []
    own = below(((code_dir or Path("/")) / ref.where).resolve().parent) if ref.is_file else exactly(ref.where)
    return list(dict.fromkeys([own, *([below(code_dir)] if code_dir else [])]))
