"""The fork server of a slot: an idle copy of the node's template, which forks the trials.

A fork write-protects all memory of the process that forks, and its own work then copies page after page. A supervisor
works a lot between two trials, so it has another process fork for it, which inherits the warm imports and changes next
to nothing.

Trials are the server's children, so only it can read how they ended. It dies with its supervisor, and its trials too.
What a trial leaves, also a daemon in a session of its own, becomes the server's child and ends with the trial.

The process of the next trial is forked when the one before it has ended, while the supervisor writes that one's outcome
and chooses a point: no trial waits for a fork.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from highnoon.shared.runtime.processes import adopt_orphans, die_with_parent
from highnoon.workers import kernel
from highnoon.workers.trial.confinement import Confinement
from highnoon.workers.trial.process import run_forked

_FORK, _WAIT = b"F", b"W"
_WAIT_ORDER = struct.Struct("=ci")
"""After it the path by which the next process joins its cgroup, or nothing."""
_PID = struct.Struct("=i")
"""The new process; below 0 the number of the error, as system calls have it."""
_END = struct.Struct("=iq")
"""Wait status, and peak memory in bytes."""
_MOST_BYTES = 8192
_ANSWERS_WITHIN_S = 10.0
_READY_WITHIN_S = 4.0
"""How long the server waits for a process that should be ready: twice, within its time for an answer."""
_ENDS_WITHIN_S = 5.0
_LOOK_S = 1.0
"""How often a supervisor that waits for an answer looks whether the server was stopped by a signal."""


class ForkServer:
    """The supervisor's end of one server. See `Template.fork_server`."""

    def __init__(self, orders: socket.socket) -> None:
        """With the end of `orders` on which a new server presents itself. Raises OSError when it has died before."""
        self._socket = orders
        # A server that is stopped or hangs counts as dead: its supervisor must not wait for it.
        self._socket.settimeout(_ANSWERS_WITHIN_S)
        greeting, descriptors, _, _ = socket.recv_fds(orders, _PID.size, 1)
        if not descriptors:
            raise ConnectionResetError("the fork server has died at its start")
        (self.pid,) = _PID.unpack(greeting)
        (self._pidfd,) = descriptors
        self._socket.settimeout(_LOOK_S)
        self._has_hung = False
        self.next_cgroup: str | None = None
        """The file by which the process forked after the next end joins its cgroup: a trial would wait for that."""

    def is_alive(self) -> bool:
        """False once it has died, is stopped, or gave no answer: it may hang in the kernel, where no signal ends it."""
        if self._has_hung or kernel.has_ended(self._pidfd):
            return False
        if kernel.is_stopped(self.pid):
            self._give_up()
        return not self._has_hung

    def fork(self, end: socket.socket, output: int) -> int:
        """A new trial process with this end of its pipe and this descriptor for what it prints. Raises OSError."""
        (pid,) = _PID.unpack(self._ask(_FORK, end.fileno(), output))
        if pid < 0:
            raise OSError(-pid, f"no process for the trial: {os.strerror(-pid)}")
        return int(pid)

    def wait(self, pid: int) -> tuple[int, int] | None:
        """Wait status and peak memory (bytes) of a trial that has ended; None if the server died, and it with it."""
        order = _WAIT_ORDER.pack(_WAIT, pid) + os.fsencode(self.next_cgroup or "")
        try:
            status, peak_rss_bytes = _END.unpack(self._ask(order))
        except OSError:
            return None
        return status, peak_rss_bytes

    def close(self) -> None:
        """Ends the server and whatever it has forked."""
        self._socket.close()
        kernel.has_ended(self._pidfd, within_s=_ENDS_WITHIN_S)
        os.close(self._pidfd)

    def _give_up(self) -> None:
        self._has_hung = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _ask(self, order: bytes, *descriptors: int) -> bytes:
        try:
            socket.send_fds(self._socket, [order], list(descriptors))
            answer = self._answer()
        except TimeoutError:
            self._give_up()
            raise
        if not answer:
            raise ConnectionResetError("the fork server is gone")
        return answer

    def _answer(self) -> bytes:
        """Raises TimeoutError for a server that hangs, sooner for one that is stopped."""
        give_up_at = time.monotonic() + _ANSWERS_WITHIN_S
        while True:
            try:
                return self._socket.recv(_MOST_BYTES)
            except TimeoutError:
                if not self.is_alive() or time.monotonic() > give_up_at:
                    raise


def serve(orders: socket.socket, parent: int, confinement: Confinement | None, environ: Mapping[str, str]) -> NoReturn:
    """The server, to its end; in the child of a fork of `parent`."""
    try:
        become_idle_copy(parent, keep=orders)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        adopt_orphans()
        for name, value in environ.items():
            os.environ[name] = value
        itself = os.pidfd_open(os.getpid())
        socket.send_fds(orders, [_PID.pack(os.getpid())], [itself])
        os.close(itself)
        server = _Server(orders, confinement)
        while server.obey():
            continue
    finally:
        os._exit(0)


def become_idle_copy(parent: int, keep: socket.socket) -> None:
    """In the child of a fork: a process that does nothing but fork, and ends with its parent."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    # A signal to every process of the node is for the agent; this one ends with its parent.
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    kernel.release_inherited(keep=(keep.fileno(),))
    # The collectors of the trials do not visit frozen objects, so their pages stay shared.
    gc.freeze()


@dataclass(frozen=True, slots=True)
class _Spare:
    """A process that waits for its trial: `socket` brings the descriptors for it."""

    pid: int
    socket: socket.socket


class _Server:
    """Runs in the copy: starts trial processes and reports how they ended."""

    def __init__(self, orders: socket.socket, confinement: Confinement | None) -> None:
        self._orders = orders
        self._confinement = confinement
        self._spare: _Spare | int | None = self._forked()

    def obey(self) -> bool:
        """One order; False at the end of the supervisor."""
        order, descriptors, _, _ = socket.recv_fds(self._orders, _MOST_BYTES, 2)
        if not order:
            return False
        if order == _FORK:
            self._orders.send(_PID.pack(self._hand_out(descriptors)))
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            _, pid = _WAIT_ORDER.unpack_from(order)
            cgroup = os.fsdecode(order[_WAIT_ORDER.size :]) or None
            _, status, usage = os.wait4(pid, 0)
            kernel.end_children()
            self._orders.send(_END.pack(status, usage.ru_maxrss * 1024))
            if not isinstance(self._spare, _Spare):
                self._spare = self._forked(cgroup)
        return True

    def _hand_out(self, descriptors: list[int]) -> int:
        """The process that has them now, or minus the number of an error."""
        spare, self._spare = self._spare, None
        if isinstance(spare, _Spare) and _gives(spare, descriptors):
            return spare.pid
        # The kernel had no process for it, or has killed it since, or holds it.
        spare = self._forked()
        if isinstance(spare, _Spare):
            return spare.pid if _gives(spare, descriptors) else -errno.ECHILD
        return spare

    def _forked(self, cgroup: str | None = None) -> _Spare | int:
        """A new one, or minus the number of an error."""
        server = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError as error:
            return -(error.errno or 1)
        if pid == 0:
            run_forked(theirs, server, self._confinement, cgroup)
        theirs.close()
        return _Spare(pid, ours)


def _gives(spare: _Spare, descriptors: list[int]) -> bool:
    """False for a process that has died, or hangs. One that is ready leads its own group, so that signals reach all of
    it."""
    with spare.socket as to_it, contextlib.suppress(OSError):
        to_it.settimeout(_READY_WITHIN_S)
        if to_it.recv(1) and socket.send_fds(to_it, [_FORK], descriptors):
            return True
    # Not waited for, since it may hang in the kernel: what is left of it is collected after a trial.
    os.kill(spare.pid, signal.SIGKILL)
    os.waitpid(spare.pid, os.WNOHANG)
    return False
