"""A server process that we own: started as a direct child, never outliving us, found again after a `kill -9` of ours.

Knows signals, pids, log files and accounts, and nothing of what the server does. PostgreSQL refuses to run as root: for
root it runs under an ordinary account that exists already; no account is made, and no permission of a folder that is
not ours is changed. Linux only (PR_SET_PDEATHSIG, /proc).
"""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar

from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.processes import Identity, identify

_CANDIDATES = ("nobody", "postgres", "daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An ordinary user of this machine."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    def reaches(self, folder: Path) -> bool:
        """True when the account may enter the folder and all above it."""
        return all(self._has(path, stat.S_IXOTH) for path in (folder, *folder.parents))

    def may_use(self, folder: Path) -> bool:
        """True when the account reaches the folder, and may read and run what is in it as its owner may."""
        return self.reaches(folder) and all(
            self._has(path, stat.S_IROTH | (path.stat().st_mode & stat.S_IXUSR and stat.S_IXOTH))
            for path in folder.rglob("*")
            if not path.is_symlink()
        )

    def _has(self, path: Path, bits: int) -> bool:
        """True for rights that the kernel grants by the mode; `bits` are the rights of others."""
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
        return found.st_mode & (bits << shift) == bits << shift


class Credentials(TypedDict, total=False):
    """The arguments of `subprocess` that change to another account."""

    user: int
    group: int
    extra_groups: list[int]


def credentials(account: Account | None) -> Credentials:
    """How to run a command as `account`; empty where no change is needed."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def ordinary_account(*owned: Path) -> Account | None:
    """None unless we are root; then the owner of the first of these paths that exists and is not root's.

    Without one, the first ordinary account of a short list. Raises EmbeddedServiceError when there is none.
    """
    if os.geteuid() != 0:
        return None
    for path in owned:
        if path.exists() and (found := path.stat()).st_uid != 0:
            return Account(uid=found.st_uid, gid=found.st_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise EmbeddedServiceError(
        f"PostgreSQL does not run as root, and this machine has none of the accounts {', '.join(_CANDIDATES)}. "
        "Run as an ordinary user, give the data folder to one, or set HIGHNOON_DATABASE_URL."
    )


def give(path: Path, account: Account) -> None:
    """Makes `path`, which is ours, the account's own, closed to all others."""
    os.chown(path, account.uid, account.gid)
    path.chmod(0o700 if path.is_dir() else 0o600)


_POLL_S = 0.01
_LAST_BYTES = 1 << 16

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
        account = command.account
        reading, writing = os.pipe()
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, os.getpid(), int(command.polite), writing]
        ids = (-1, -1) if account is None else (account.uid, account.gid)
        with command.log.open("ab") as log, os.fdopen(reading, "rb") as failure:
            try:
                self._popen: subprocess.Popen[bytes] = subprocess.Popen(
                    [*map(str, (*launcher, *ids)), *command.argv],
                    cwd=command.cwd,
                    env=clean_environment() if command.environ is None else dict(command.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C reaches us alone; we end the services in order.
                    start_new_session=True,
                    pass_fds=[writing],
                )
            finally:
                os.close(writing)
            # Closed by the change to the program itself, which from then on has its own name in /proc.
            number = failure.read()
        if number:
            self._popen.wait()
            raise OSError(int(number), os.strerror(int(number)), command.argv[0])

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
        with suppress(OSError), self._command.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-count:])
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


# Not `preexec_fn`: this process has threads, and a fork of it may inherit a lock that is held.
_LAUNCH = """
import ctypes, os, signal, sys
owner, polite, failure, uid, gid = map(int, sys.argv[1:6])
os.set_inheritable(failure, False)
for signum in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(signum, signal.SIG_DFL)
try:
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After the change of uid, which would clear it.
    ctypes.CDLL(None).prctl(1, polite, 0, 0, 0)
    # It may have died before the line above, and the signal will never come.
    if os.getppid() == owner:
        os.execvp(sys.argv[6], sys.argv[6:])
except OSError as error:
    os.write(failure, str(error.errno).encode())
os._exit(1)
"""
