"""What supervisors report to their agent about each attempt, for its metrics: how long the steps took, how it ended.

One datagram per attempt, through a socket in the node's folder. Not the multiprocess mode of prometheus-client: that
leaves a file behind for every recycled supervisor, and would drag a trial's own use of the library into our folder.
Sends without blocking and drops what the agent does not take in time: metrics may miss an attempt, the database not.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from highnoon.shared.domain.lease import Disposition
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome

_NAME = "telemetry.sock"
_SENT_WITHIN_S = 0.02
_MOST_BYTES = 4096


@dataclass(slots=True, kw_only=True)
class AttemptMetrics:
    """One attempt as its supervisor saw it. Seconds; `ending` is empty for one whose lease was lost."""

    idle_s: float | None = None
    steps_s: dict[str, float] = field(default_factory=dict)
    ending: str = ""
    cause: str = ""
    disposition: str = ""
    duration_s: float | None = None
    was_ended_by_others: bool = False


class Telemetry:
    """A supervisor's side: one for the life of its slot, so that the time between two attempts is known."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is the node's; None for a node without metrics, where nothing is sent."""
        self._folder = folder
        self._free_since = time.monotonic()
        self._metrics = AttemptMetrics()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """The slot was idle until now, and is again afterwards; then the agent gets the attempt's metrics."""
        self._metrics = AttemptMetrics(idle_s=time.monotonic() - self._free_since)
        yield
        self._free_since = time.monotonic()
        self._send(self._metrics)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times one step of the protocol, if it succeeds."""
        began = time.monotonic()
        yield
        self._metrics.steps_s[name] = time.monotonic() - began

    def decided(self, outcome: Outcome, disposition: Disposition, foreign_ending: str | None) -> None:
        """How the attempt ended, what that does to its ticket, and how another program had ended its Optuna trial."""
        metrics = self._metrics
        metrics.ending, metrics.cause = str(outcome.ending), outcome.cause or ""
        metrics.disposition, metrics.duration_s = str(disposition), outcome.duration_s
        metrics.was_ended_by_others = foreign_ending is not None

    def lost(self, disposition: Disposition) -> None:
        """An attempt whose supervisor died, which the agent has ended."""
        self._send(AttemptMetrics(ending=str(Ending.LOST), cause="lost", disposition=str(disposition)))

    def _send(self, metrics: AttemptMetrics) -> None:
        if self._folder is not None:
            with suppress(OSError), _socket_in(self._folder) as (sender, path):
                sender.settimeout(_SENT_WITHIN_S)
                sender.sendto(json.dumps(asdict(metrics)).encode(), path)


@contextmanager
def inbox(folder: Path) -> Iterator[socket.socket]:
    """The agent's side: a socket for `received`, which ends with it."""
    with _socket_in(folder) as (receiver, path):
        (folder / _NAME).unlink(missing_ok=True)
        receiver.bind(path)
        try:
            yield receiver
        finally:
            receiver.shutdown(socket.SHUT_RD)


def received(receiver: socket.socket) -> Iterator[AttemptMetrics]:
    """The metrics of attempts as they arrive, until the inbox ends; ignores what it cannot read."""
    with suppress(OSError):  # closed between two
        while datagram := receiver.recv(_MOST_BYTES):
            with suppress(ValueError, TypeError):
                yield AttemptMetrics(**json.loads(datagram))


@contextmanager
def _socket_in(folder: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket, and the address of our name in `folder`. A socket's path holds 107 bytes, and a home may be longer."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            yield ours, f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)
