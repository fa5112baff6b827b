"""Which trial must go when the whole node runs out of memory, and what is written down of it. Pure choice, small notes.

One at a time: first among those that hold more than their share, and of these the newest that is hungry, since it
frees much and loses little. Judged and signalled by the agent; the note tells the victim's supervisor why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from highnoon.shared.domain.byte_sizes import said
from highnoon.shared.domain.lease import OOM_NEIGHBOUR

_HUNGRY_SHARE = 0.5
"""Hungry is who holds at least this much of what the largest holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A running trial: its process group, when it began (ticks of the machine's clock), the bytes that it holds."""

    group: int
    started_ticks: int
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KillNote:
    """Why the agent has killed a trial: `memory_limit` by its own doing, `oom_neighbour` by another's."""

    cause: str
    message: str


def victim(candidates: Sequence[Candidate], *, share_bytes: int, least_bytes: int) -> Candidate | None:
    """Who goes first; None when nobody holds `least_bytes`, so that no kill would help."""
    worth = [candidate for candidate in candidates if candidate.used_bytes >= least_bytes]
    over = [candidate for candidate in worth if candidate.used_bytes > share_bytes]
    asked = over or worth
    if not asked:
        return None
    largest = max(candidate.used_bytes for candidate in asked)
    hungry = [candidate for candidate in asked if candidate.used_bytes >= _HUNGRY_SHARE * largest]
    return max(hungry, key=lambda candidate: (candidate.started_ticks, candidate.used_bytes))


def note_of(candidate: Candidate, *, share_bytes: int) -> KillNote:
    """What its supervisor is told."""
    cause = "memory_limit" if candidate.used_bytes > share_bytes else OOM_NEIGHBOUR
    held = f"it held {said(candidate.used_bytes)}, its share is {said(share_bytes)}"
    return KillNote(cause=cause, message=f"{cause}: the node ran out of memory; {held}")


class KillNotes:
    """The notes of one node, a file for each process group. Written before the kill, read after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, group: int, note: KillNote) -> None:
        """Whole or not at all. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f"{group}.new"
        draft.write_text(json.dumps(asdict(note)))
        draft.replace(self._path(group))

    def read(self, group: int) -> KillNote | None:
        """The note of this group, None when the agent has not killed it."""
        try:
            return KillNote(**json.loads(self._path(group).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def drop(self, group: int) -> None:
        """Forgets: process numbers come again."""
        self._path(group).unlink(missing_ok=True)

    def _path(self, group: int) -> Path:
        return self._folder / f"{group}.json"
