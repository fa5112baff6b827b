"""How long an attempt may take, how long it may be silent, and how long it has to end. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.trial import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """Seconds; None means none."""

    trial_timeout_s: float | None
    stall_timeout_s: float | None
    kill_grace_s: float

    def exceeded(self, *, ran_s: float, silent_s: float) -> Outcome | None:
        """The outcome of an attempt that has run for so long, its last report so long ago; None within the limits."""
        if self.trial_timeout_s is not None and ran_s > self.trial_timeout_s:
            message = f"over trial_timeout ({self.trial_timeout_s:g} s)"
            return Outcome(ending=Ending.TIMED_OUT, cause=Cause.TIMEOUT, message=message)
        if self.stall_timeout_s is not None and silent_s > self.stall_timeout_s:
            message = f"no report for stall_timeout ({self.stall_timeout_s:g} s)"
            return Outcome(ending=Ending.TIMED_OUT, cause=Cause.STALLED, message=message)
        return None
