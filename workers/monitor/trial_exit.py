"""Waits for the end of a trial process whose result is there, or that no signal ends. The lease is renewed meanwhile.

A trial with a result may take long to leave: its `atexit` functions upload, or the kernel frees hundreds of GB. Decides
nothing: whatever study and node want by now, the result stands.
"""

from __future__ import annotations

import signal
from contextlib import suppress

from highnoon.shared.domain.errors import LeaseLost
from highnoon.workers.monitor.services import Services
from highnoon.workers.trial.launch import ExitStatus, TrialHandle, now_s, wait_any
from highnoon.workers.trial.output import Output

_LOOK_S = 0.01


def await_exit(trial: TrialHandle, output: Output, services: Services, wait_s: float) -> tuple[ExitStatus, bool]:
    """The exit status of a trial that leaves within `wait_s` seconds; an empty one for one that is killed then.

    Also whether it was killed because these seconds were over. After SIGKILL it waits as long again: `clean_up` does
    not renew the lease.
    """
    is_late = False
    with suppress(LeaseLost):  # writing its outcome will raise it again
        if (exit_ := _exit_within(trial, output, services, wait_s)) is not None:
            output.drain()
            return exit_, False
        is_late = True
    trial.kill(signal.SIGKILL)
    with suppress(LeaseLost):
        _exit_within(trial, output, services, wait_s)
    output.drain()
    return ExitStatus(), is_late


def _exit_within(trial: TrialHandle, output: Output, services: Services, wait_s: float) -> ExitStatus | None:
    """None for a trial that still runs. Raises LeaseLost."""
    deadline = now_s() + wait_s
    while (exit_ := trial.poll()) is None and now_s() < deadline:
        wait_any(trial.exit_fds(), min(_LOOK_S, wait_s))
        output.drain()
        services.interruption()
    return exit_
