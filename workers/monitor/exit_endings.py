"""The Outcome of a trial process that ended without a result of its own and without a request of ours."""

from __future__ import annotations

import signal

from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.processes import signal_name
from highnoon.workers.trial.launch import ExitStatus

_OWN_FAULT = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)
"""Signals that a process brings upon itself. The others came from outside."""


NOT_BEGUN = "not_begun"


def ending_of(exit_: ExitStatus, *, has_begun: bool) -> Outcome:
    """A crash is the objective's failure; a signal from outside, or an end before the user's code, infrastructure."""
    if exit_.signum is None and not has_begun:
        message = f"the trial process exited with status {exit_.status} before it had loaded the objective"
        return Outcome(ending=Ending.KILLED, cause=NOT_BEGUN, message=message)
    if exit_.signum is None:
        message = f"the trial process exited with status {exit_.status} before the objective returned"
        return Outcome(ending=Ending.FAILED, cause="exited", message=message)
    name = signal_name(exit_.signum)
    if exit_.signum in _OWN_FAULT:
        return Outcome(ending=Ending.FAILED, cause="crashed", message=f"the trial process crashed with {name}")
    return Outcome(ending=Ending.KILLED, cause="signal", message=f"the trial process was killed by {name}")
