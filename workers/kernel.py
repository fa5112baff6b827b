"""Calls of the Linux kernel for a node's own processes: groups, descriptors, threads, signals.

No policy here: supervisor and agent decide which process is killed and when.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Collection
from pathlib import Path


def prefer_as_oom_victim() -> None:
    """If the kernel must kill for memory, it takes this process and not its supervisor."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        # A worker may have more than 500 itself, as in a pod of Kubernetes.
        score.write_text(str(min(1000, max(500, int(score.read_text()) + 100))))


def join_cgroup(procs: str) -> bool:
    """Moves this process into a cgroup, by its file of processes; False when it may not join."""
    try:
        with Path(procs).open("r+") as file:
            file.write("0")
    except OSError:
        return False
    return True


def thread_count() -> int:
    """Threads of this process, C and Python alike."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def has_ended(pidfd: int, *, within_s: float = 0.0) -> bool:
    """Whether the process of this descriptor has ended, or does so within that time."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(within_s * 1000))


def is_stopped(pid: int) -> bool:
    """True for a process that SIGSTOP has stopped: it continues only after SIGCONT."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def kill_group(pgid: int, signum: int) -> bool:
    """Signals a whole process group; False when nothing of it is left."""
    try:
        os.killpg(pgid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def children() -> set[int]:
    """The children of this process, zombies too; none where the kernel has no list of them."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, path.read_text().split()))
    return found


def end_children(keep: Collection[int] = (), *, within_s: float = 1.0) -> None:
    """Kills and reaps the children of this process but `keep`, and what these leave to it.

    One that hangs in the kernel (state D) is left after `within_s` seconds; with 0.0 there is one pass, and no wait.
    """
    give_up_at = time.monotonic() + within_s
    while found := children().difference(keep):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() >= give_up_at:
            return
        time.sleep(0.001)


def release_inherited(keep: Collection[int]) -> None:
    """Points every inherited socket and pipe but `keep` at /dev/null.

    Not closed: a stale Python object that is collected later would close its old number, by then another file.
    Without this a trial holds its supervisor's sentinel, and the pool would notice the supervisor's death only
    when the trial ends.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor in keep or descriptor == null or descriptor < 3:
            continue
        with contextlib.suppress(OSError):
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
                os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def restore_signals() -> None:
    """Python's own defaults: a trial must run none of its supervisor's handlers, and receive what that one ignores."""
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """A private two-way pipe: (supervisor's end, trial's end)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
