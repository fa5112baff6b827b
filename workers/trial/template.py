"""The template of a node's trials: a copy of the Celery parent as it was after its imports, which forks fork servers.

The Celery parent and the supervisors work, and each object that they use splits a large page of theirs (`huge_pages`)
into 512 small ones: a fork of them would copy twice as many entries as a fork of a process that has done nothing. This
one does nothing but wait for supervisors. It ends a fork server whose supervisor has ended, also one that is stopped.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from highnoon.workers import kernel
from highnoon.workers.trial.confinement import Confinement, prepared
from highnoon.workers.trial.fork_server import ForkServer, become_idle_copy, serve

_MOST_BYTES = 4096
_TAKEN_WITHIN_S = 10.0
"""A template that is stopped takes no order."""


class Template:
    """Its parent's end, which the children of that parent inherit.

    Make it before threads, connections and TensorFlow's runtime: every trial inherits what this process holds then.
    """

    def __init__(self, confinement: Confinement | None = None) -> None:
        self._confinement = confinement
        self._begin()

    def _begin(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(theirs, parent, self._confinement)
        theirs.close()
        self._orders.settimeout(_TAKEN_WITHIN_S)

    def keep_alive(self) -> None:
        """For its parent, before it forks another supervisor: continues a stopped template, replaces a dead one."""
        with suppress(ChildProcessError):
            pid, _ = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                if kernel.is_stopped(self.pid):
                    os.kill(self.pid, signal.SIGCONT)
                return
        self._orders.close()
        self._begin()

    def fork_server(self, environ: Mapping[str, str]) -> ForkServer:
        """A fork server for this process, which has these variables too. Raises OSError without a template."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.pidfd_open(os.getpid())
        try:
            with theirs:
                socket.send_fds(self._orders, [json.dumps(dict(environ)).encode()], [theirs.fileno(), supervisor])
            return ForkServer(ours)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(supervisor)

    def close(self) -> None:
        """Ends it with all fork servers; for its parent, whose children may have this end as well."""
        self._orders.close()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _serve(orders: socket.socket, parent: int, confinement: Confinement | None) -> NoReturn:
    """The template, to its end."""
    try:
        become_idle_copy(parent, keep=orders)
        if confinement is not None:
            prepared(confinement)  # for all trials of the node
        _Template(orders, confinement).run()
    finally:
        os._exit(0)


class _Template:
    """Runs in the copy. Processes are known by descriptors, whose numbers no other process gets."""

    def __init__(self, orders: socket.socket, confinement: Confinement | None) -> None:
        self._orders = orders
        self._confinement = confinement
        self._servers: dict[int, int] = {}
        """Fork server to its pid."""
        self._supervisors: dict[int, int] = {}
        """Supervisor to its fork server."""

    def run(self) -> None:
        """Obeys until the end of its parent."""
        is_obeying = True
        while is_obeying:
            ended = self._wait()
            for supervisor in ended & self._supervisors.keys():
                self._forget(supervisor)
            for server in ended & self._servers.keys():
                self._collect(server)
            if self._orders.fileno() in ended:
                is_obeying = self._obey()

    def _wait(self) -> set[int]:
        """Processes that have ended, and the socket of orders when it has one."""
        poller = select.poll()
        for descriptor in (self._orders.fileno(), *self._servers, *self._supervisors):
            poller.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poller.poll()}

    def _forget(self, supervisor: int) -> None:
        """Ends the fork server of a supervisor that has ended. It has its own sign of that, unless it is stopped."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._supervisors.pop(supervisor), signal.SIGKILL)
        os.close(supervisor)

    def _collect(self, server: int) -> None:
        os.waitpid(self._servers.pop(server), 0)
        for supervisor in [one for one, its in self._supervisors.items() if its == server]:
            del self._supervisors[supervisor]
            os.close(supervisor)
        os.close(server)

    def _obey(self) -> bool:
        """One supervisor gets a fork server; False at the end of the parent."""
        order, descriptors, _, _ = socket.recv_fds(self._orders, _MOST_BYTES, 2)
        if not order:
            return False
        end, supervisor = descriptors
        template = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # the supervisor finds its end closed
            os.close(supervisor)
        else:
            if pid == 0:
                self._release_processes(supervisor)
                serve(socket.socket(fileno=end), template, self._confinement, json.loads(order))
            server = os.pidfd_open(pid)
            self._servers[server], self._supervisors[supervisor] = pid, server
        os.close(end)
        return True

    def _release_processes(self, supervisor: int) -> None:
        """In a fork server: a trial could signal them by these descriptors."""
        for descriptor in (supervisor, *self._supervisors, *self._servers):
            os.close(descriptor)
