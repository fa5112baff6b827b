"""Artifacts: files of a trial that are kept beside its value, as Optuna describes them.

Owns what a name may be, and the attribute that Optuna and optuna-dashboard read. The files are in a `FileStore`.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from highnoon.shared.domain.errors import UserInputError, nearest

ARTIFACT = "artifacts:"
"""Optuna's prefix of the system attribute that describes an artifact of a trial; its id follows."""

MOST_ARTIFACTS = 100
"""Of one trial."""

OF_ANOTHER_TICKET = 0
"""In the place of an attempt's number: attempts of a ticket begin at 1."""

_LONGEST_NAME = 240
"""In bytes: a file system takes 255, and a draft of the file has a longer name."""
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
_ANY_KIND = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file of a trial. Size and digest are None for what another program has stored."""

    id: str
    name: str
    size_bytes: int | None = None
    sha256: str | None = None
    mimetype: str = _ANY_KIND
    encoding: str | None = None

    @classmethod
    def of_file(cls, file_id: str, name: str, *, size_bytes: int, sha256: str) -> Artifact:
        """What was stored by that id; its kind is guessed from its name, as Optuna does."""
        kind, encoding = mimetypes.guess_type(name)
        return cls(
            id=file_id,
            name=name,
            size_bytes=size_bytes,
            sha256=sha256,
            mimetype=kind or _ANY_KIND,
            encoding=encoding,
        )

    @property
    def attr(self) -> tuple[str, str]:
        """Key and value of the system attribute: Optuna's own fields, which are JSON as text, and two of ours."""
        described = {
            "artifact_id": self.id,
            "filename": self.name,
            "mimetype": self.mimetype,
            "encoding": self.encoding,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
        }
        return ARTIFACT + self.id, json.dumps(described)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The newest checkpoint of a ticket in the store: which attempt has saved it, and what is stored."""

    id: str
    attempt: int
    size_bytes: int
    sha256: str

    @property
    def is_of_another_ticket(self) -> bool:
        """Whether the ticket only begins with it, and has saved none of its own yet."""
        return self.attempt == OF_ANOTHER_TICKET


def artifacts_in(attrs: Mapping[str, Any]) -> list[Artifact]:
    """The artifacts that a trial's system attributes describe, by name. Leaves out what has no usable id or name."""
    found = [_described(value) for key, value in attrs.items() if key.startswith(ARTIFACT)]
    return sorted((one for one in found if one is not None), key=lambda artifact: (artifact.name, artifact.id))


def listed(artifacts: Mapping[int, Sequence[Artifact]], trial: int | None = None) -> list[tuple[int, Artifact]]:
    """Each with the number of its trial, in their order; of one trial, or of all."""
    numbers = sorted(artifacts) if trial is None else [trial]
    return [(number, artifact) for number in numbers for artifact in artifacts.get(number, ())]


def chosen_artifact(artifacts: Mapping[int, Sequence[Artifact]], trial: int, name: str) -> Artifact:
    """The artifact of that name. Raises UserInputError with those that there are."""
    found = {artifact.name: artifact for artifact in artifacts.get(trial, ())}
    if name in found:
        return found[name]
    if found:
        raise UserInputError(f"trial {trial} has no artifact {name!r}. {nearest(str(name), found)}")
    others = ", ".join(str(number) for number in sorted(artifacts)[:20])
    raise UserInputError(f"trial {trial} has no artifact; trials with some: {others}" if others else "no trial has one")


def name_flaw(name: object) -> str:
    """Why a file cannot have this name; empty when it can."""
    if not isinstance(name, str) or len(name.encode(errors="replace")) > _LONGEST_NAME:
        return f"must be text of 1 to {_LONGEST_NAME} bytes"
    return _form_flaw(name)


def _form_flaw(name: str) -> str:
    """Of stored ones as well, which may be longer: other programs and older versions wrote them."""
    if not name:
        return f"must be text of 1 to {_LONGEST_NAME} bytes"
    if "/" in name or "\\" in name or name.startswith(".") or not name.isprintable() or name != name.strip():
        return "must be the name of a file: no folder, no leading dot, no control characters or surrounding blanks"
    return ""


def is_id(written: object) -> bool:
    """Whether a file in a store may be called so: it becomes a part of its path."""
    return isinstance(written, str) and _ID.fullmatch(written) is not None


def _described(value: object) -> Artifact | None:
    try:
        written = json.loads(value) if isinstance(value, str) else {}
        file_id, name = written["artifact_id"], str(written["filename"]).rpartition("/")[2]
        size, digest = written.get("size_bytes"), written.get("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not is_id(file_id) or _form_flaw(name):
        return None
    return Artifact(
        id=file_id,
        name=name,
        size_bytes=size if isinstance(size, int) else None,
        sha256=digest if isinstance(digest, str) else None,
        mimetype=str(written.get("mimetype") or _ANY_KIND),
        encoding=written.get("encoding") and str(written["encoding"]),
    )
