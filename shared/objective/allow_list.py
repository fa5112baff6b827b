"""Which objectives may run: the patterns of HIGHNOON_OBJECTIVES, and what they are compared with.

An objective is code, and whoever can write to the database can name one. So a worker runs only what a pattern of its
own covers. A pattern is a file (`/srv/objectives/*.py`) or a module (`recipes.*`), and may name the function as well
(`recipes.*:objective`); `*` stands for any text, slashes and dots included. Imports no user code and reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective.reference import brought_module, own_module, source_of

_WILD = "*?["


def resolved(ref: ObjectiveRef, code_dir: str | Path | None) -> str:
    """The objective as patterns see it: a file by its whole path, without `..` and links; a module as it is."""
    return _spelled((Path(code_dir or "/") / ref.where).resolve(), ref) if ref.is_file else str(ref)


def matches(spelled: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern covers what `resolved` gave."""
    return any(fnmatchcase(spelled, _whole(pattern)) for pattern in patterns)


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
    return () if file is None else (_spelled(file.resolve(), ref),)


def _spelled(file: Path, ref: ObjectiveRef) -> str:
    return f"{file}:{ref.function}"


def _whole(pattern: str) -> str:
    """With its function, and with the folder that it begins with as the kernel knows it."""
    where, colon, function = pattern.rpartition(":")
    if not colon or "/" in function:
        where, function = pattern, "*"
    if where.startswith("/"):
        fixed = where[: min((where.find(sign) for sign in _WILD if sign in where), default=len(where))]
        folder = fixed.rpartition("/")[0] or "/"
        where = f"{str(Path(folder).resolve()).rstrip('/')}{where[len(folder.rstrip('/')) :]}"
    return f"{where}:{function}"
