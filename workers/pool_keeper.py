"""The pool of a node as its agent keeps it: started with its secrets through a pipe, rested, woken, ended.

Owns the process and the count of its starts. Why it should rest or end is the agent's business.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time

from highnoon.shared.runtime.processes import die_with_parent, module_command
from highnoon.workers import kernel
from highnoon.workers.node import Node, threads_per_slot, without_secrets

_RESTARTS = 5
"""A pool that dies more often than this within a minute has a fault that a restart does not mend."""

_REFUSED = 2
"""The exit status of a pool that says that it cannot live."""


class PoolKeeper:
    """One node's pool; there is none before the first `keep`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._process: subprocess.Popen[str] | None = None
        self._starts: list[float] = []
        self._is_finishing = False
        self.rests = False

    def finish(self) -> None:
        """Nothing new, and it ends when what runs is over: Celery's warm shutdown."""
        if self._process is not None:
            self._is_finishing = True
            self._process.terminate()

    def rest(self) -> None:
        """As `finish`, and no pool until `wake`."""
        self.rests = True
        self.finish()

    def wake(self) -> None:
        """There is a pool again, as soon as the one that was to rest is over."""
        self.rests = False

    def kill(self) -> None:
        """Ends it at once, with its supervisors and their trials."""
        if self._process is not None and self._process.poll() is None:
            kernel.kill_group(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def is_gone(self) -> bool:
        """True when no pool runs."""
        return self._process is None or self._process.poll() is not None

    def keep(self) -> int | None:
        """Starts a pool where there is none and should be one. Returns the exit status of one that ended by itself."""
        if self._process is not None:
            status = self._process.poll()
            if status is not None:
                self._process = None
            return None if self._is_finishing else status
        if not self.rests:
            self._start()
        return None

    def is_hopeless(self, status: int) -> bool:
        """True when starting it again would not help."""
        recent = [started for started in self._starts if time.monotonic() - started < 60.0]
        return status == _REFUSED or len(recent) > _RESTARTS

    def _start(self) -> None:
        """A new pool: it imports TensorFlow before it takes a message."""
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
            module_command("highnoon.workers.pool"),
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environ,
            preexec_fn=_tied_to_agent,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._node.to_json())
        self._process.stdin.close()
        self._starts.append(time.monotonic())
        self._is_finishing = False


def _tied_to_agent() -> None:
    """Runs in the pool before exec: ends with its agent, and hears signals that the agent has blocked."""
    die_with_parent(signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
