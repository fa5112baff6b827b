"""Starting a trial process in one of three isolations, and ending it with everything that it started.

    fork    a child of this slot's fork server that inherits the warm imports copy-on-write (default)
    spawn   a new interpreter: for libraries that do not survive a fork
    none    a thread of this supervisor: no isolation at all, for trusted, tiny objectives

Decides nothing about outcomes: `trial_monitor` does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from highnoon.shared.objective.trial_pipe import Pipe, PipeChannel
from highnoon.shared.runtime.processes import adopt_orphans
from highnoon.shared.search.plugged import plugin_processes
from highnoon.workers import kernel
from highnoon.workers.trial.fork_server import ForkServer
from highnoon.workers.trial.output import Output
from highnoon.workers.trial.process import Assignment, perform

_LAST_LINES_S = 2.0
"""A thread that has given its result may have to wait for a processor before it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How the trial process ended, as the kernel reports it; `peak_rss_bytes` counts inherited pages too."""

    status: int | None = None
    signum: int | None = None
    peak_rss_bytes: int | None = None

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it: below 0 the signal."""
        return self.status if self.signum is None else -self.signum


class TrialHandle(Protocol):
    """A trial that was started, whatever its isolation. No method waits, except `clean_up`."""

    pipe: Pipe
    pid: int | None

    def exit_fds(self) -> list[int]:
        """Descriptors that become readable when the trial ends."""

    def poll(self) -> ExitStatus | None:
        """Its exit status, if it has ended."""

    def kill(self, signum: int) -> None:
        """Signals the trial and everything that it started."""

    def clean_up(self, wait_s: float) -> bool:
        """Kills what is left of its group and gives descriptors back.

        False when the trial still runs after `wait_s` seconds: SIGKILL cannot end it (it hangs in the kernel, or is a
        thread). The supervisor must then leave its slot to another one.
        """


Wait = Callable[[int], tuple[int, int] | None]
"""Returns wait status and peak memory (bytes) of a child that has ended; None when that cannot be known any more.

Only the parent of a process can read them.
"""


class ThisProcess:
    """The parent of a spawned trial, and of what that leaves. Make it before the trial."""

    def __init__(self) -> None:
        adopt_orphans()
        self._older = kernel.children()

    def wait(self, pid: int) -> tuple[int, int]:
        """See `Wait`."""
        _, status, usage = os.wait4(pid, 0)
        with plugin_processes() as plugins:
            # Also one that was started during the trial.
            kernel.end_children(keep=self._older | plugins)
        return status, usage.ru_maxrss * 1024


class ProcessTrial:
    """A trial in a process of its own: forked or spawned."""

    def __init__(self, pid: int, wait: Wait, pipe: Pipe) -> None:
        self.pid: int | None = pid
        self.pipe = pipe
        self._pid = pid
        self._wait = wait
        self._pidfd = os.pidfd_open(pid)
        self._exit: ExitStatus | None = None

    def exit_fds(self) -> list[int]:
        return [self._pidfd]

    def poll(self) -> ExitStatus | None:
        if self._exit is None and wait_any([self._pidfd], 0.0):
            self._exit = _exit_status(self._wait(self._pid))
        return self._exit

    def kill(self, signum: int) -> None:
        # Before its `setsid` it has no group of its own.
        if not kernel.kill_group(self._pid, signum):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def clean_up(self, wait_s: float) -> bool:
        self.kill(signal.SIGKILL)
        wait_any([self._pidfd], wait_s)
        has_ended = self.poll() is not None
        os.close(self._pidfd)
        self.pipe.close()
        return has_ended


class ThreadTrial:
    """A trial in a thread of this process (isolation "none"). No signal can end it."""

    def __init__(self, assignment: Assignment, output: Output) -> None:
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        ours, theirs = kernel.socket_pair()
        self.pid: int | None = None
        self.pipe = Pipe(ours)
        self._theirs = theirs
        self._writing_end = os.dup(output.writing_end)
        output.release_writing_end()
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, args=(assignment,), name="trial", daemon=True)
        self._thread.start()

    def exit_fds(self) -> list[int]:
        return [self._end]

    def poll(self) -> ExitStatus | None:
        return ExitStatus(status=0) if self._has_ended or not self._thread.is_alive() else None

    def kill(self, signum: int) -> None:
        return

    def clean_up(self, wait_s: float) -> bool:
        self._thread.join(max(wait_s, _LAST_LINES_S) if self._has_ended else wait_s)
        self.pipe.close()
        has_ended = not self._thread.is_alive()
        if has_ended:
            self._theirs.close()
            os.close(self._end)
        return has_ended

    def _run(self, assignment: Assignment) -> None:
        channel = PipeChannel(Pipe(self._theirs))
        channel.hello()
        with os.fdopen(self._writing_end, "w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
            outcome = perform(assignment, channel, in_thread=True)
        channel.result(outcome)
        self._has_ended = True
        os.eventfd_write(self._end, 1)


def launch(isolation: str, assignment: Assignment, output: Output, forks: ForkServer | None) -> TrialHandle:
    """Starts the trial; only a fork needs `forks`. Raises OSError when there is no process to be had for it."""
    Path(assignment.work_dir).mkdir(parents=True, exist_ok=True)
    if isolation == "none":
        return ThreadTrial(assignment, output)
    ours, theirs = kernel.socket_pair()
    wait: Wait
    if isolation == "fork" and forks is not None:
        wait, pid = forks.wait, forks.fork(theirs, output.writing_end)
    else:
        wait, pid = ThisProcess().wait, _spawned(theirs, assignment, output)
    theirs.close()
    output.release_writing_end()
    pipe = Pipe(ours)
    # Held before it has anything to run: an objective that kills its parent may be gone a moment later.
    trial = ProcessTrial(pid, wait, pipe)
    pipe.send({"event": "assignment", "assignment": assignment.to_json()})
    return trial


def _spawned(end: socket.socket, assignment: Assignment, output: Output) -> int:
    # The current folder is on no import path. No switch for it: a program that the objective runs would inherit it.
    code = (
        "import sys; sys.path[:] = filter(None, sys.path); "
        f"from highnoon.workers.trial.process import spawned; spawned({end.fileno()}, {os.getpid()})"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=output.writing_end,
        stderr=output.writing_end,
        pass_fds=[end.fileno()],
        start_new_session=True,
        cwd=assignment.work_dir,
        env={**os.environ, **assignment.task.environment, "PYTHONUNBUFFERED": "1"},
    )
    # wait4 waits for the pid, since it also returns the peak memory; Popen must not wait for it as well.
    child.returncode = 0
    return child.pid


def _exit_status(end: tuple[int, int] | None) -> ExitStatus:
    if end is None:
        return ExitStatus(signum=signal.SIGKILL)
    status, peak_rss_bytes = end
    if os.WIFSIGNALED(status):
        return ExitStatus(signum=os.WTERMSIG(status), peak_rss_bytes=peak_rss_bytes)
    return ExitStatus(status=os.WEXITSTATUS(status), peak_rss_bytes=peak_rss_bytes)


def wait_any(descriptors: list[int], timeout_s: float) -> list[int]:
    """The descriptors that are readable, after at most `timeout_s` seconds."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
    return [descriptor for descriptor, _ in poller.poll(max(0.0, timeout_s) * 1000)]


def now_s() -> float:
    """This process's monotonic clock: for periods and deadlines, never for the expiry of a lease."""
    return time.monotonic()
