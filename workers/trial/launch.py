"""Starting a trial process in one of three isolations, and ending it with everything that it started.

    fork    a child of this slot's fork server that inherits the warm imports copy-on-write (default)
    spawn   a new interpreter: for libraries that do not survive a fork
    none    a thread of this supervisor: no isolation at all, for trusted, tiny objectives

Decides nothing about outcomes: `watch` does.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from highnoon.workers import kernel
from highnoon.workers.trial.fork_server import ForkServer
from highnoon.workers.trial.output import Output
from highnoon.workers.trial.pipe import Pipe, PipeChannel
from highnoon.workers.trial.process import SHORT_PATH, Assignment, perform


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How the kernel says the trial process ended; `peak_rss_bytes` counts inherited pages too."""

    status: int | None = None
    signum: int | None = None
    peak_rss_bytes: int | None = None


class Running(Protocol):
    """A trial under way, whatever its isolation."""

    pipe: Pipe
    pid: int | None

    def wakers(self) -> list[int]:
        """Descriptors that become readable when the trial ends."""

    def poll(self) -> Exit | None:
        """Its end, if it has ended. Does not wait."""

    def kill(self, signum: int) -> None:
        """Signals the trial and everything that it started."""

    def clean_up(self) -> None:
        """Ends what is left of its group and gives descriptors and scratch files back."""


class Family(Protocol):
    """Who can tell how a trial process ended: the parent that forked it."""

    def wait(self, pid: int) -> tuple[int, int] | None:
        """Wait status and peak memory (bytes) of a child that has ended; None when that cannot be known any more."""


class OwnChildren:
    """Children of this very process."""

    def wait(self, pid: int) -> tuple[int, int]:
        """See `Family`."""
        _, status, usage = os.wait4(pid, 0)
        return status, usage.ru_maxrss * 1024


class ChildTrial:
    """A trial in a process of its own: forked or spawned."""

    def __init__(self, pid: int, family: Family, pipe: Pipe, work_dir: Path) -> None:
        self.pid: int | None = pid
        self.pipe = pipe
        self._pid = pid
        self._family = family
        self._work_dir = work_dir
        self._pidfd = os.pidfd_open(pid)
        self._exit: Exit | None = None

    def wakers(self) -> list[int]:
        return [self._pidfd]

    def poll(self) -> Exit | None:
        if self._exit is None and wait_any([self._pidfd], 0.0):
            self._exit = _exit_of(self._family.wait(self._pid))
        return self._exit

    def kill(self, signum: int) -> None:
        kernel.kill_group(self._pid, signum)

    def clean_up(self) -> None:
        kernel.kill_group(self._pid, signal.SIGKILL)
        while self.poll() is None:
            select.select([self._pidfd], [], [])
        os.close(self._pidfd)
        self.pipe.close()
        _tidy(self._work_dir)


class ThreadTrial:
    """A trial in a thread of this process (isolation "none"). It cannot be killed: see `is_abandoned`."""

    def __init__(self, assignment: Assignment, output: Output) -> None:
        ours, theirs = kernel.socket_pair()
        self.pid: int | None = None
        self.pipe = Pipe(ours)
        self._theirs = theirs
        self._writing_end = os.dup(output.writing_end)
        output.release_writing_end()
        self._thread = threading.Thread(target=self._run, args=(assignment,), name="trial", daemon=True)
        self._thread.start()

    def wakers(self) -> list[int]:
        return []

    def poll(self) -> Exit | None:
        return None if self._thread.is_alive() else Exit(status=0)

    def kill(self, signum: int) -> None:
        return

    @property
    def is_abandoned(self) -> bool:
        """True when the thread still runs after its attempt was given up: this process must not go on."""
        return self._thread.is_alive()

    def clean_up(self) -> None:
        self._thread.join(timeout=1.0)
        self.pipe.close()
        if not self.is_abandoned:
            self._theirs.close()

    def _run(self, assignment: Assignment) -> None:
        channel = PipeChannel(Pipe(self._theirs))
        channel.hello()
        with os.fdopen(self._writing_end, "w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
            outcome = perform(assignment, channel, in_thread=True)
        channel.result(outcome)


def launch(isolation: str, assignment: Assignment, output: Output, forks: ForkServer) -> Running:
    """Starts the trial."""
    Path(assignment.work_dir).mkdir(parents=True, exist_ok=True)
    if isolation == "none":
        return ThreadTrial(assignment, output)
    ours, theirs = kernel.socket_pair()
    pid = forks.fork(theirs, output.writing_end) if isolation == "fork" else _spawned(theirs, assignment, output)
    theirs.close()
    output.release_writing_end()
    pipe = Pipe(ours)
    pipe.send({"event": "assignment", "assignment": assignment.to_json()})
    return ChildTrial(pid, forks if isolation == "fork" else OwnChildren(), pipe, Path(assignment.work_dir))


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
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    # The pid is waited for by wait4, which also tells the peak memory; Popen must not wait for it as well.
    child.returncode = 0
    return child.pid


def _exit_of(end: tuple[int, int] | None) -> Exit:
    if end is None:
        return Exit(signum=signal.SIGKILL)
    status, peak_rss_bytes = end
    if os.WIFSIGNALED(status):
        return Exit(signum=os.WTERMSIG(status), peak_rss_bytes=peak_rss_bytes)
    return Exit(status=os.WEXITSTATUS(status), peak_rss_bytes=peak_rss_bytes)


def _tidy(work_dir: Path) -> None:
    """Scratch goes; what the objective wrote into its working directory stays, an empty one goes too."""
    scratch = work_dir / "tmp"
    if (short := scratch / SHORT_PATH).is_symlink():
        shutil.rmtree(short.readlink(), ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        work_dir.rmdir()
    except OSError:
        return


def wait_any(descriptors: list[int], timeout_s: float) -> list[int]:
    """Those of the descriptors that are readable, after at most `timeout_s` seconds."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
    return [descriptor for descriptor, _ in poller.poll(max(0.0, timeout_s) * 1000)]


def now_s() -> float:
    """This process's monotonic clock: for periods and deadlines, never for a lease's expiry."""
    return time.monotonic()
