"""The Outcome of a trial process that ended without a result of its own and without a request of ours. Pure."""

from __future__ import annotations

import signal

from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.processes import signal_name

_OWN_FAULT = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)
"""Signals that a process brings upon itself. The others came from outside."""


def outcome_of_exit(status: int | None, *, has_begun: bool = True) -> Outcome:
    """A crash is the objective's failure; a signal from outside, or an end before the user's code, infrastructure.

    `status` is as `subprocess` has it: below 0 the signal that ended the process.
    """
    if status is not None and status < 0:
        name = signal_name(-status)
        if -status in _OWN_FAULT:
            message = f"the trial process crashed with {name}"
            return Outcome(ending=Ending.FAILED, cause=Cause.CRASHED, message=message, signal=name)
        message = f"the trial process was killed by {name}"
        return Outcome(ending=Ending.KILLED, cause=Cause.SIGNAL, message=message, signal=name)
    when = "before the objective returned" if has_begun else "before it had loaded the objective"
    return Outcome(
        ending=Ending.FAILED if has_begun else Ending.KILLED,
        cause=Cause.EXITED if has_begun else Cause.NOT_BEGUN,
        message=f"the trial process exited with status {status} {when}",
        exit_status=status,
    )
