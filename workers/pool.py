"""The Celery parent of a node: warm imports, one task, prefork children that are supervisors.

Imports the preload list and never runs it; holds no database connection, since every fork would inherit it.
Started by the agent, which writes the Node to its standard input.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_before_create_process, worker_process_init, worker_process_shutdown

from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.domain.messages import PROTOCOL_VERSION, RUN_TRIAL_TASK, RunTrial, queue_name
from highnoon.shared.domain.states import WENT_WRONG
from highnoon.shared.domain.tracebacks import shortened
from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.objective.seeds import seed_libraries
from highnoon.shared.runtime.broker import make_app
from highnoon.shared.runtime.environment_record import EnvironmentRecord
from highnoon.shared.runtime.logs import configure, event
from highnoon.shared.runtime.processes import die_with_parent, tensorflow_has_run
from highnoon.workers import kernel
from highnoon.workers.celery_patch import exit_when_drained, replace_ended_children_at_once, send_events_together
from highnoon.workers.gpu_check import flaw_of_forks, uses_gpu
from highnoon.workers.gpus import GpuClaim, pin
from highnoon.workers.message_filter import install_message_filter
from highnoon.workers.node import Node
from highnoon.workers.supervisor import EXIT_REPLACED, EndedAttempt, Supervisor
from highnoon.workers.trial import huge_pages
from highnoon.workers.trial.template import Template

_log = logging.getLogger("highnoon.workers.pool")

_DECLINED_S = 10.0


class TrialFailed(Exception):
    """A trial went wrong. Raised at the end of its task alone, when everything is written, for Flower to show."""


class PreloadError(HighNoonError):
    """A module of the preload list cannot be imported, or its import leaves a process that must not be forked."""


def run_pool(node: Node) -> int:
    """Runs until a warm shutdown has ended. Returns the exit code."""
    configure(node.settings.log_level)
    _keep_temporary_files_in(node.folder / "tmp")
    with huge_pages.room_for_objects():
        preload(node.settings.preload)
        # What the libraries make when they are seeded first, each trial would make again.
        seed_libraries(0)
    node = replace(_with_gpu_checked(node), environment=EnvironmentRecord.here(_gpus()))
    _make_forks_cheap()
    template = Template(node.confinement)
    _prepare_each_fork(template, kernel.thread_count())
    replace_ended_children_at_once()
    send_events_together()
    install_message_filter(node.folder)
    app = make_app(node.settings.redis_url or "", max_tasks_per_child=node.settings.max_tasks_per_child)
    register_task(app, node, template)
    exit_when_drained(app, node)
    # The images of this product run as an ordinary user; a node that runs as root was meant to.
    warnings.simplefilter("ignore", SecurityWarning)
    app.start(_arguments(node))
    return 0


def _keep_temporary_files_in(folder: Path) -> None:
    """billiard makes a folder at each start and leaves it when it is killed. The node's folder goes with the node."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.mkdir(parents=True)
        tempfile.tempdir = str(folder)


def preload(names: tuple[str, ...]) -> None:
    """Imports each module once, for all trials to inherit. Raises PreloadError."""
    for name in names:
        began = time.monotonic()
        try:
            importlib.import_module(name)
        except Exception as error:  # the module's own code: whatever its import raises
            reason = f"{type(error).__name__}: {error}"
            raise PreloadError(f"preload: cannot import {name!r} ({reason}); HIGHNOON_PRELOAD lists it") from error
        event(_log, "preload", module=name, seconds=time.monotonic() - began)
    if tensorflow_has_run():
        raise PreloadError("preload: an import has started TensorFlow's runtime, and forked trials would hang")


def _make_forks_cheap() -> None:
    """Once for all supervisors and trials, which share the result."""
    # The collectors of the children do not visit frozen objects, so their pages stay shared.
    gc.collect()
    gc.freeze()
    began = time.monotonic()
    gathered = huge_pages.gather()
    event(_log, "huge_pages", megabytes=gathered >> 20, seconds=time.monotonic() - began)


def _with_gpu_checked(node: Node) -> Node:
    """Finds out at the start whether trials can be forked here, or the driver does not survive a fork."""
    if not node.gpus or "tensorflow" not in sys.modules:
        return node
    flaw = flaw_of_forks(lambda: uses_gpu(node.gpus[0]))
    if not flaw:
        return node
    event(_log, "gpu_lost_in_fork", level=logging.WARNING, worker=node.worker_id[:8], instead="spawn", reason=flaw)
    return replace(node, fork_works=False)


def _gpus() -> list[str]:
    return [device.name for device in Gpus().devices()]


class _Child:
    """A Celery child: hands each message to its supervisor, which is made with the first one."""

    def __init__(self, node: Node, template: Template) -> None:
        self._node = node
        self._template = template
        self._supervisor: Supervisor | None = None
        self._gpu: GpuClaim | None = None
        """Held as long as this process runs."""
        self._has_refused = False

    def run(self, message: RunTrial) -> str:
        """What Flower shows of the attempt. Raises TrialFailed for one that went wrong."""
        # Not before: a child that has no message costs no connection.
        supervisor = self._supervisor = self._supervisor or self._begun()
        if message.is_newer:
            self._log_refusal(message)
            supervisor.decline(message, delay_s=_DECLINED_S)
            return "declined: a newer version wrote the message"
        return shown_in_flower(supervisor.run(message))

    def close(self) -> None:
        """The end of the child."""
        if self._supervisor is not None:
            self._supervisor.close()

    def _begun(self) -> Supervisor:
        self._gpu = self._gpu or pin(self._node)
        try:
            forks = self._template.fork_server({} if self._gpu is None else self._gpu.environ)
        except OSError as error:
            # The pool replaces this child, and the template before it. The coordinator sends the message again.
            event(_log, "replaced", level=logging.WARNING, pid=os.getpid(), reason=error)
            os._exit(EXIT_REPLACED)
        return Supervisor(self._node, forks)

    def _log_refusal(self, message: RunTrial) -> None:
        """Once for each child."""
        if not self._has_refused:
            self._has_refused = True
            event(_log, "message_refused", level=logging.WARNING, version=message.version, known=PROTOCOL_VERSION)


def register_task(app: Celery, node: Node, template: Template) -> None:
    """The only task, and what a child does at its beginning and its end."""
    child = _Child(node, template)  # each process that is forked has its own copy, and the parent runs no task

    @app.task(name=RUN_TRIAL_TASK, ignore_result=True, throws=(TrialFailed,))  # type: ignore[untyped-decorator]
    def run_trial(**kwargs: Any) -> str:
        return child.run(RunTrial.from_kwargs(kwargs))

    @worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def _begin_as_supervisor(**_: object) -> None:
        configure(node.settings.log_level)
        # A service manager may signal every process of the node. The order to drain comes through the agent, and
        # billiard's own handler would leave in the middle of an attempt, with its lease.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    @worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
    def _end_as_celery_child(**_: object) -> None:
        child.close()
        # billiard's child sleeps a second at its end, until this signal of its parent wakes it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def shown_in_flower(ended: EndedAttempt | None) -> str:
    """What Flower shows of a task. Raises TrialFailed for a trial that went wrong: by that it is shown as failed."""
    if ended is None:
        return "no attempt: the ticket was taken, or waits"
    text = f"study {ended.study}, trial {ended.trial}: {ended.outcome.ending}"
    if ended.outcome.ending in WENT_WRONG:
        raise TrialFailed(f"{text}: {shortened(ended.outcome.message, 200)}")
    value = ended.outcome.logged_value
    return text if value is None else f"{text} {value:g}" if isinstance(value, float) else f"{text} {value}"


def _prepare_each_fork(template: Template, baseline: int) -> None:
    """Every child is forked from this process: a thread that was started since could hold a lock in each of them."""

    @worker_before_create_process.connect(weak=False)  # type: ignore[untyped-decorator]
    def _check(**_: object) -> None:
        template.keep_alive()
        threads = kernel.thread_count()
        if threads > baseline or tensorflow_has_run():
            event(_log, "unsafe_fork", level=logging.ERROR, threads=threads, baseline=baseline)


def _arguments(node: Node) -> list[str]:
    return [
        "--quiet",
        "worker",
        "--pool=prefork",
        f"--concurrency={node.slots}",
        f"--queues={','.join(queue_name(resource) for resource in node.resources)}",
        f"--hostname={node.worker_id[:8]}@{node.host}",
        "--without-gossip",
        "--without-mingle",
        f"--loglevel={'DEBUG' if node.settings.log_level == 'debug' else 'WARNING'}",
    ]


def main() -> int:
    """Reads the Node from standard input and serves it, as long as its agent runs."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        return 0
    # The agent has blocked them for itself.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        return run_pool(Node.from_json(sys.stdin.read()))
    except PreloadError as error:
        event(_log, "pool_refused", level=logging.ERROR, reason=error)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
