"""Which trial is killed when the whole node runs out of memory, and the record of it. Pure choice, small files.

One at a time: first among those that hold more than their share, and of these the newest large one, since its end
frees much and loses little work. The agent kills; the record lets the trial's supervisor report the cause.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from highnoon.shared.domain.memory_sizes import said
from highnoon.shared.domain.states import Cause

_LARGE_SHARE = 0.5
"""Large is a trial that holds at least this much of what the largest holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTrial:
    """Its process group, when it began (ticks of the machine's clock), the bytes that it holds."""

    group: int
    started_ticks: int
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRecord:
    """Why the agent has killed a trial: `memory_limit` by its own doing, `oom_neighbour` by another's."""

    cause: str
    message: str

    @classmethod
    def of(cls, trial: RunningTrial, *, share_bytes: int) -> KillRecord:
        """The cause by what the trial held of its share."""
        cause = Cause.MEMORY_LIMIT if trial.used_bytes > share_bytes else Cause.OOM_NEIGHBOUR
        held = f"it held {said(trial.used_bytes)}, its share is {said(share_bytes)}"
        return cls(cause=cause, message=f"{cause}: the node ran out of memory; {held}")


def select(trials: Sequence[RunningTrial], *, share_bytes: int, least_bytes: int) -> RunningTrial | None:
    """The trial to kill; None when none holds `least_bytes`, so that no kill would help."""
    worth = [trial for trial in trials if trial.used_bytes >= least_bytes]
    candidates = [trial for trial in worth if trial.used_bytes > share_bytes] or worth
    largest = max((trial.used_bytes for trial in candidates), default=0)
    large = [trial for trial in candidates if trial.used_bytes >= _LARGE_SHARE * largest]
    return max(large, key=lambda trial: (trial.started_ticks, trial.used_bytes), default=None)


class KillRecords:
    """The records of one node, a file for each process group. Written before the kill, read after it."""

    def __init__(self, node_folder: Path) -> None:
        self._folder = node_folder / "kills"

    def write(self, group: int, record: KillRecord) -> None:
        """Whole or not at all. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f"{group}.new"
        draft.write_text(json.dumps(asdict(record)))
        draft.replace(self._path(group))

    def read(self, group: int) -> KillRecord | None:
        """The record of this group, None when the agent has not killed it."""
        try:
            return KillRecord(**json.loads(self._path(group).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def drop(self, group: int) -> None:
        """Removes the record: process numbers are used again."""
        self._path(group).unlink(missing_ok=True)

    def _path(self, group: int) -> Path:
        return self._folder / f"{group}.json"
