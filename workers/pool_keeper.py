"""The pool of a node as its agent keeps it: started with its secrets through a pipe, paused, resumed, ended.

Owns the process and the count of its starts. The agent decides when to pause or end it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from contextlib import suppress

from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.processes import dies_at_each_start, module_command
from highnoon.workers import kernel
from highnoon.workers.node import Node, threads_per_slot, without_secrets

_log = logging.getLogger("highnoon.workers.agent")

_REFUSED = 2
"""The exit status of a pool that cannot be started: its preload fails."""

_START_AGAIN_S = 10.0
"""After a start that failed: a machine without memory or processes to spare may have some again."""

_KILLED_WITHIN_S = 2.0
"""A process that the kernel does not end in this time (state D) may never end; the agent does not wait for it."""


class PoolKeeper:
    """One node's pool; there is none before the first `keep`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._process: subprocess.Popen[str] | None = None
        self._starts: list[float] = []
        self._start_at = 0.0
        self._older = kernel.children()
        self._is_finishing = False
        self.is_paused = False

    def finish(self) -> None:
        """Takes no new trial and ends after the running ones: Celery's warm shutdown."""
        if self._process is not None:
            self._is_finishing = True
            self._process.terminate()

    def pause(self) -> None:
        """As `finish`, and no new pool until `resume`."""
        self.is_paused = True
        self.finish()

    def resume(self) -> None:
        """Allows a pool again, as soon as the paused one has ended."""
        self.is_paused = False

    def kill(self) -> bool:
        """Ends it at once, with its supervisors and their trials. False when the kernel has not ended it in time."""
        if self._process is not None and self._process.poll() is None:
            kernel.kill_group(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILLED_WITHIN_S)
        return self.is_gone

    @property
    def pid(self) -> int | None:
        """Of the Celery parent; None while there is none."""
        return None if self._process is None else self._process.pid

    def end_orphans(self, *, within_s: float = 0.0) -> None:
        """Kills what became a child of this process, but the pool; waits at most `within_s` for their end."""
        pool = () if self.pid is None else (self.pid,)
        kernel.end_children(keep={*self._older, *pool}, within_s=within_s)

    @property
    def is_gone(self) -> bool:
        """True when no pool runs."""
        return self._process is None or self._process.poll() is not None

    def keep(self) -> int | None:
        """Starts a pool unless one runs or it is paused. Returns the exit status of one that ended by itself.

        EX_OSERR stands for one that the machine had no process or memory for, which is tried again.
        """
        if self._process is not None:
            status = self._process.poll()
            if status is not None:
                self._process = None
            return None if self._is_finishing else status
        if self.is_paused or time.monotonic() < self._start_at:
            return None
        try:
            self._start()
        except OSError as error:
            event(_log, "pool_not_started", level=logging.ERROR, worker=self._node.worker_id[:8], error=error)
            self._start_at = time.monotonic() + _START_AGAIN_S
            return os.EX_OSERR
        return None

    def is_hopeless(self, status: int) -> bool:
        """True when starting it again would not help."""
        return status == _REFUSED or dies_at_each_start(self._starts)

    def _start(self) -> None:
        """A new pool: it imports TensorFlow before it takes a message. Raises OSError."""
        self._starts.append(time.monotonic())
        threads = str(threads_per_slot(self._node.slots))
        environ = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            **without_secrets(os.environ),
        }
        # billiard would turn our warm shutdown into a cold one, which ends a supervisor with its lease.
        environ.pop("REMAP_SIGTERM", None)
        self._process = subprocess.Popen(
            # With our pid: a pool that finds another parent has lost its agent.
            module_command("highnoon.workers.pool", str(os.getpid())),
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environ,
        )
        self._is_finishing = False
        assert self._process.stdin is not None
        # It may have ended already: its status is read like any other.
        with suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(self._node.to_json())
