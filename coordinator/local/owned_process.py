"""A server process that we own: started as a direct child, never outliving us, found again after a `kill -9` of ours.

Knows signals, pids and log files, and nothing of what the server does. Linux only (PR_SET_PDEATHSIG, /proc).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from highnoon.coordinator.local.account import Account, credentials
from highnoon.shared.runtime.processes import Identity, die_with_parent, identify

_POLL_S = 0.01

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run and how to end it: `polite` is sent by `stop` and, by the kernel, when the owner dies."""

    argv: Sequence[str]
    cwd: Path
    log: Path
    polite: signal.Signals
    account: Account | None = None
    environ: Mapping[str, str] | None = None
    """None: only what any server needs, and nothing of ours."""


class OwnedProcess:
    """A running child of ours. Start it from a thread that outlives it: the kernel ends it with the thread."""

    def __init__(self, command: Command) -> None:
        """Raises OSError when the binary cannot be executed."""
        self._command = command
        self._keep_one_old_log()
        with command.log.open("ab") as log:
            self._popen: subprocess.Popen[bytes] = subprocess.Popen(
                list(command.argv),
                cwd=command.cwd,
                env=clean_environment() if command.environ is None else dict(command.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches us alone; we end the services in order.
                start_new_session=True,
                # Runs after the change of uid, which would clear it.
                preexec_fn=_dies_with(os.getpid(), command.polite),
                **credentials(command.account),
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_status(self) -> int | None:
        """As in `subprocess`: negative for a signal, None while it runs."""
        return self._popen.poll()

    def identity(self) -> Identity | None:
        """What finds this process again from another one; None once it has ended."""
        return identify(self.pid)

    def last_lines(self, count: int = 15) -> str:
        """The end of its log, for an error message."""
        with suppress(OSError):
            return "\n".join(self._command.log.read_text(errors="replace").splitlines()[-count:])
        return ""

    def stop(self, patience_s: float = 20.0) -> None:
        """Politely, then by force. Returns when it is gone; harmless when it is gone already."""
        for number, wait_s in ((self._command.polite, patience_s), (signal.SIGKILL, None)):
            if self.is_alive:
                self._popen.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._popen.wait(wait_s)

    def _keep_one_old_log(self) -> None:
        if self._command.log.exists():
            self._command.log.replace(self._command.log.with_suffix(".log.old"))


def end_leftover(identity: Identity, patience_s: float = 5.0) -> None:
    """Waits until an earlier owner's process is gone, and kills it when it will not go."""
    if not wait_until(lambda: identify(identity.pid) != identity, patience_s):
        with suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGKILL)
        wait_until(lambda: identify(identity.pid) != identity, patience_s)


def wait_until(fact: Callable[[], T], patience_s: float) -> T:
    """Polls until `fact` holds and returns it; what it returned last, which is false, after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not (seen := fact()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return seen


def clean_environment() -> dict[str, str]:
    """What a service needs of our environment. Leaves out PGPORT, PGDATA, LC_ALL and our own secrets."""
    kept: Mapping[str, str] = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if k in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _dies_with(owner: int, number: signal.Signals) -> Callable[[], None]:
    def in_child() -> None:
        die_with_parent(number)
        if os.getppid() != owner:  # it died before the line above, and the signal will never come
            os._exit(1)

    return in_child
