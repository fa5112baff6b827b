"""The trial that runs here: which channel `report`, `should_prune` and `report_params` of this process speak through.

Bound by whoever runs an attempt (`execution.run_attempt`), read by the SDK. One trial at a time per thread of
control; a thread started inside an objective sees the trial that was bound last in its process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from shared.errors import NoTrialRunning


class Channel(Protocol):
    """What a running objective may say and ask. Each call may raise TrialStopped or TrialCancelled."""

    def report(self, value: float, step: int) -> None:
        """Records an intermediate value; the first value of a step wins, as in Optuna."""

    def should_prune(self) -> bool:
        """True when the study's pruner would end this trial now."""

    def report_params(self, total: int, active: int | None = None) -> None:
        """Says how large the model of this trial is; the last count before the first report counts."""


_mine: ContextVar[Channel | None] = ContextVar("channel", default=None)
"""The channel of the trial whose objective this thread of control is in."""

_bound: list[Channel] = []
"""Every channel bound in this process, oldest first: a thread that an objective starts inherits no context."""


@contextmanager
def bound(channel: Channel) -> Iterator[None]:
    """Makes `channel` the one that the trial running here speaks through."""
    token = _mine.set(channel)
    _bound.append(channel)
    try:
        yield
    finally:
        _bound.remove(channel)
        _mine.reset(token)


def is_trial_running() -> bool:
    """True inside an objective that a manager or a worker runs."""
    return bool(_bound)


def channel() -> Channel:
    """The running trial's channel. Raises NoTrialRunning outside an objective."""
    found = _mine.get() or (_bound[-1] if _bound else None)
    if found is None:
        raise NoTrialRunning(
            "no trial is running here: report(), should_prune() and report_params() may only be called inside an "
            "objective that HPOTrialManager.optimize() or a worker runs"
        )
    return found
