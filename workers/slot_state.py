"""The state of a slot: which ticket its supervisor works on, with which attempt and trial process, in a small file.

Written by the supervisor, read by the node's agent when the supervisor is dead: it releases the lease at once and ends
what the trial left behind. A hint only: every write that follows from it is fenced in the database.
A node whose slots have no state has nothing to do.

A supervisor keeps its file open and overwrites the one line in it several times per trial: a file that is replaced
waits for the disk each time. The line begins with a checksum, by which a reader knows one that is being written.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from highnoon.shared.runtime.processes import Identity, identify

_SUFFIX = ".state"
_TRIES = 5
_WRITTEN_WITHIN_S = 0.001
"""One call of the system writes a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """`started_ticks` makes the pid unique for this boot of the machine; `attempt` is None before the start.

    `reserved_bytes` is the memory that the slot keeps for its trial, None until that is admitted. `work_dir` is the
    attempt's working folder, whose scratch files its supervisor removes, or else the agent.
    """

    pid: int
    started_ticks: int
    study: str
    ticket: int
    attempt: int | None = None
    work_dir: str | None = None
    trial_group: int | None = None
    reserved_bytes: int | None = None

    @property
    def writer_is_alive(self) -> bool:
        """False once the supervisor that wrote this is gone."""
        writer = identify(self.pid)
        return writer is not None and writer.started_ticks == self.started_ticks


class SlotStates:
    """The states of one node's slots, a file each, in the folder of the node."""

    def __init__(self, node_folder: Path) -> None:
        self._folder = node_folder / "slots"
        # Of this process, where it is a supervisor.
        self._me: Identity | None = None
        self._file: int | None = None
        self._mine: SlotState | None = None

    def prepare(self) -> None:
        """Makes the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def at_work(self, study: str, ticket: int) -> Iterator[None]:
        """The state exists from before this process asks for the lease until it has released it. Raises OSError."""
        if self._me is None:
            self._me = identify(os.getpid())
            assert self._me is not None, "a running process has an identity"
        me = self._me
        self._write(SlotState(pid=me.pid, started_ticks=me.started_ticks, study=study, ticket=ticket))
        try:
            yield
        finally:
            self._clear()

    def close(self) -> None:
        """Removes this process's file. For a supervisor that ends in order."""
        if self._file is not None:
            descriptor, self._file = self._file, None
            with contextlib.suppress(OSError):
                self._path(os.getpid()).unlink(missing_ok=True)
                os.close(descriptor)

    def reserve(self, reserved_bytes: int) -> None:
        """Adds what is kept of the node's memory for the trial that this slot is about to run."""
        self._change(reserved_bytes=reserved_bytes)

    def add_attempt(self, attempt: int, work_dir: str | None = None) -> None:
        """Adds the lease that was granted, and where its trial will run."""
        self._change(attempt=attempt, work_dir=work_dir)

    def add_trial(self, trial_group: int | None) -> None:
        """Adds the process group of the trial that now runs; a thread has none."""
        if trial_group is not None:
            self._change(trial_group=trial_group)

    def forget_trial(self) -> None:
        """Removes the process group of a trial that has ended: the machine may give its number to other processes."""
        # The outcome is known by now, and must not be lost on a disk that refuses.
        with contextlib.suppress(OSError):
            self._change(trial_group=None)

    def reserved_by_others(self) -> list[int]:
        """What the other slots keep for trials that run, or are about to. Raises OSError."""
        return [
            state.reserved_bytes
            for state in self._read(ValueError)
            if state.reserved_bytes is not None and state.pid != os.getpid() and state.writer_is_alive
        ]

    def supervisors(self) -> list[int]:
        """Those at work."""
        return [state.pid for state in self._living()]

    def trial_groups(self) -> list[int]:
        """The process groups of the trials that run now."""
        return [state.trial_group for state in self._living() if state.trial_group is not None]

    def states(self) -> list[SlotState]:
        """Of all slots that have one, also of dead supervisors; without those that cannot be read at this moment.

        A network disk may give an error now and then, which must not end the agent and with it all trials.
        """
        with contextlib.suppress(OSError):
            return [*self._read(OSError, ValueError)]
        return []

    def all_states(self) -> list[SlotState]:
        """As `states`. Raises OSError, and ValueError for what another version wrote."""
        return [*self._read()]

    def none_at_work(self) -> bool:
        """True when no living supervisor has a ticket, nor will have one once the node drains.

        False while a state cannot be read, which may be of one at work.
        """
        try:
            return not any(state.writer_is_alive for state in self._read(ValueError))
        except OSError:
            return False

    def busy(self) -> int:
        """How many living supervisors have an attempt under way."""
        return sum(state.attempt is not None for state in self._living())

    def orphaned(self) -> list[SlotState]:
        """States whose supervisor is dead."""
        return [state for state in self.states() if not state.writer_is_alive]

    def drop(self, state: SlotState) -> None:
        """Removes a state that was acted upon; on a disk that fails it stays, and is acted upon again."""
        with contextlib.suppress(OSError):
            self._path(state.pid).unlink(missing_ok=True)

    def _living(self) -> list[SlotState]:
        return [state for state in self.states() if state.writer_is_alive]

    def _read(self, *skipped: type[Exception]) -> Iterator[SlotState]:
        """The states; a file that raises one of `skipped` has none.

        What is none of ours, or another version wrote, raises ValueError. Raises OSError for a folder that exists and
        cannot be read.
        """
        try:
            # Not `glob`: whether it hides errors depends on the version of Python.
            names = os.listdir(self._folder)  # noqa: PTH208
        except FileNotFoundError:
            return
        for name in names:
            with contextlib.suppress(*skipped):
                state = _state_in(self._folder / name) if name.endswith(_SUFFIX) else None
                if state is not None:
                    yield state

    def _path(self, pid: int) -> Path:
        return self._folder / f"{pid}{_SUFFIX}"

    def _change(self, **changes: Any) -> None:
        if self._mine is not None:
            self._write(replace(self._mine, **changes))

    def _write(self, state: SlotState) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._file = os.open(self._path(state.pid), flags, 0o600)
        os.pwrite(self._file, encoded(state), 0)
        self._mine = state

    def _clear(self) -> None:
        self._mine = None
        if self._file is not None:
            try:
                os.pwrite(self._file, b"\n", 0)
            except OSError:  # the agent must not take the slot for busy
                self.close()


def _state_in(path: Path) -> SlotState | None:
    """None for a slot without work. Raises ValueError for a line that is none of ours."""
    for _ in range(_TRIES):
        try:
            line = path.read_bytes().partition(b"\n")[0]
        except FileNotFoundError:
            return None
        if not line:
            return None
        checksum, _, text = line.partition(b" ")
        if checksum == _checksum(text):
            break
        time.sleep(_WRITTEN_WITHIN_S)
    else:
        raise ValueError(f"{path} is no state of a slot")
    try:
        return SlotState(**json.loads(text))
    except TypeError as error:
        raise ValueError(f"{path} was written by another version: {error}") from None


def encoded(state: SlotState) -> bytes:
    """The first line of a slot's file; what follows it is left from longer ones."""
    text = json.dumps(asdict(state)).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
