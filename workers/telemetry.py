"""What supervisors tell their agent about each attempt, for its metrics: how long the steps took, how it ended.

A datagram per attempt through a socket in the node's folder. Not the multiprocess mode of prometheus-client: that
leaves a file behind for every recycled supervisor, and would drag a trial's own use of the library into our folder.
Telling is best effort and waits for nobody: metrics may miss an attempt, the ledger does not.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from highnoon.shared.domain.lease import Disposition
from highnoon.shared.domain.trial import Outcome

_NAME = "telemetry.sock"
_PATIENCE_S = 0.02
_MOST_BYTES = 4096


@dataclass(slots=True, kw_only=True)
class AttemptNote:
    """One attempt as a supervisor saw it. Seconds; `ending` is empty for one whose lease was lost under it."""

    idle_s: float | None = None
    steps_s: dict[str, float] = field(default_factory=dict)
    ending: str = ""
    cause: str = ""
    disposition: str = ""
    duration_s: float | None = None


class Telemetry:
    """The supervisor's side. Lives as long as its slot, so that the time between two attempts is known."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`folder` is the node's; None for a node without metrics, which is told nothing."""
        self._folder = folder
        self._clock = clock
        self._free_since = clock()
        self._note = AttemptNote()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """The slot was idle until now, and is again afterwards; then the agent is told."""
        self._note = AttemptNote(idle_s=self._clock() - self._free_since)
        yield
        self._free_since = self._clock()
        self._tell()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times one step of the protocol that succeeds."""
        began = self._clock()
        yield
        self._note.steps_s[name] = self._clock() - began

    def decided(self, outcome: Outcome, disposition: Disposition) -> None:
        """How the attempt ended, and what that does to its ticket."""
        note = self._note
        note.ending, note.cause, note.disposition = str(outcome.ending), outcome.cause or "", str(disposition)
        note.duration_s = outcome.duration_s

    def _tell(self) -> None:
        if self._folder is None:
            return
        with suppress(OSError), _socket_in(self._folder) as (sender, path):
            sender.settimeout(_PATIENCE_S)
            sender.sendto(json.dumps(asdict(self._note)).encode(), path)


@contextmanager
def inbox(folder: Path) -> Iterator[socket.socket]:
    """The agent's side: a socket for `notes`, which ends with it."""
    with _socket_in(folder) as (receiver, path):
        (folder / _NAME).unlink(missing_ok=True)
        receiver.bind(path)
        try:
            yield receiver
        finally:
            receiver.shutdown(socket.SHUT_RD)


def notes(receiver: socket.socket) -> Iterator[AttemptNote]:
    """What supervisors tell, as it comes; drops what is none of ours."""
    while told := _next(receiver):
        try:
            note = AttemptNote(**json.loads(told))
        except (ValueError, TypeError):
            continue
        yield note


def _next(receiver: socket.socket) -> bytes:
    try:
        return receiver.recv(_MOST_BYTES)
    except OSError:  # closed between two
        return b""


@contextmanager
def _socket_in(folder: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket, and the address of our name in `folder`. A socket's path holds 107 bytes, and a home may be longer."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            yield ours, f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)
