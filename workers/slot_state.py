"""The note of a slot: which ticket this supervisor is at work on, by which attempt and trial process, as a small file.

Written by the supervisor, read by the node's agent when the supervisor is dead: it lets go of the lease at once
and ends what the trial left behind. A hint only: every write that follows from it is fenced in the ledger.
A node without notes has nothing to do.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from highnoon.shared.runtime.processes import identify


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotNote:
    """`started_ticks` makes the pid unique for this boot of the machine; `attempt` is None before the claim.

    `reserved_bytes` is the memory that the slot keeps for its trial, None until that is admitted.
    """

    pid: int
    started_ticks: int
    study: str
    ticket: int
    attempt: int | None = None
    trial_group: int | None = None
    reserved_bytes: int | None = None

    @property
    def writer_is_alive(self) -> bool:
        """False once the supervisor that wrote this is gone."""
        writer = identify(self.pid)
        return writer is not None and writer.started_ticks == self.started_ticks


class SlotNotes:
    """The folder of one node's notes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Makes the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def at_work(self, study: str, ticket: int) -> Iterator[None]:
        """The note exists from before this process asks for the lease until it has let go of it."""
        me = identify(os.getpid())
        assert me is not None, "a running process has an identity"
        self._write(SlotNote(pid=me.pid, started_ticks=me.started_ticks, study=study, ticket=ticket))
        try:
            yield
        finally:
            self._path(me.pid).unlink(missing_ok=True)

    def reserve(self, reserved_bytes: int) -> None:
        """Notes what is kept of the node's memory for the trial that this slot is about to run."""
        self._rewrite(lambda note: replace(note, reserved_bytes=reserved_bytes))

    def reserved_by_others(self) -> list[int]:
        """What the other slots keep for trials that run, or are about to."""
        others = (note for note in self._all() if note.pid != os.getpid() and note.writer_is_alive)
        return [note.reserved_bytes for note in others if note.reserved_bytes is not None]

    def add_attempt(self, attempt: int) -> None:
        """Notes the lease that was granted."""
        self._rewrite(lambda note: replace(note, attempt=attempt))

    def add_trial(self, trial_group: int | None) -> None:
        """Notes the process group of the trial that now runs."""
        self._rewrite(lambda note: replace(note, trial_group=trial_group))

    def trial_groups(self) -> list[int]:
        """The process groups of the trials that run now."""
        return [note.trial_group for note in self._all() if note.trial_group is not None and note.writer_is_alive]

    def none_at_work(self) -> bool:
        """True when no living supervisor has a ticket, nor will have one once the node drains."""
        return not any(note.writer_is_alive for note in self._all())

    def busy(self) -> int:
        """How many living supervisors have an attempt under way."""
        return sum(note.attempt is not None and note.writer_is_alive for note in self._all())

    def orphaned(self) -> list[SlotNote]:
        """Notes whose supervisor is dead."""
        return [note for note in self._all() if not note.writer_is_alive]

    def drop(self, note: SlotNote) -> None:
        """Forgets a note that was acted upon."""
        self._path(note.pid).unlink(missing_ok=True)

    def _all(self) -> list[SlotNote]:
        notes = [self._read(path) for path in self._folder.glob("*.json")]
        return [note for note in notes if note is not None]

    def _path(self, pid: int) -> Path:
        return self._folder / f"{pid}.json"

    def _rewrite(self, change: Callable[[SlotNote], SlotNote]) -> None:
        note = self._read(self._path(os.getpid()))
        if note is not None:
            self._write(change(note))

    def _write(self, note: SlotNote) -> None:
        draft = self._folder / f"{note.pid}.new"
        draft.write_text(json.dumps(asdict(note)))
        draft.replace(self._path(note.pid))

    def _read(self, path: Path) -> SlotNote | None:
        try:
            return SlotNote(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
