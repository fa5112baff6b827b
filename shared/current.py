"""The trial that runs here: which channel `report` and `should_prune` of this process speak through.

Bound by whoever runs an attempt (`execution.run_attempt`), read by the SDK. One trial at a time per thread
of control; a thread or task started inside the objective sees the trial of its process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from shared.errors import NoTrialRunning


class Channel(Protocol):
    """What a running objective may say and ask. Both calls may raise TrialStopped or TrialCancelled."""

    def report(self, value: float, step: int) -> None:
        """Records an intermediate value; the first value of a step wins, as in Optuna."""

    def should_prune(self) -> bool:
        """True when the study's pruner would end this trial now."""


_channel: Channel | None = None


@contextmanager
def bound(channel: Channel) -> Iterator[None]:
    """Makes `channel` the one that this process's running trial speaks through."""
    global _channel
    before, _channel = _channel, channel
    try:
        yield
    finally:
        _channel = before


def channel() -> Channel:
    """The running trial's channel. Raises NoTrialRunning outside an objective."""
    if _channel is None:
        raise NoTrialRunning(
            "no trial is running here: report() and should_prune() may only be called inside an objective "
            "that HPOTrialManager.optimize() or a worker runs"
        )
    return _channel
