"""A trial of `HPOTrialManager` in a process of its own: its memory, and all that it starts, ends with it.

    fork    a copy of this process: whatever the objective refers to is there
    spawn   a new interpreter, which gets the objective by cloudpickle over a private file: after TensorFlow or CUDA has
            run in this process, whose threads and devices no copy would have

Pickles never leave this machine and never come back: a trial's answers are JSON on the pipe. Decides nothing about
endings: `highnoon.local.trial` does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import NoReturn

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.tracebacks import user_traceback
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.attempt import Objective
from highnoon.shared.objective.seeds import seed_libraries
from highnoon.shared.objective.staged_files import NO_CHECKPOINTS
from highnoon.shared.objective.trial_pipe import Pipe, PipeChannel
from highnoon.shared.objective.trial_task import TrialTask, run_task
from highnoon.shared.runtime.processes import (
    die_with_parent,
    end_openmp_threads,
    forget_exit_functions,
    leave,
    tensorflow_has_run,
)

_RESULT_SENT = 0
"""The manager has the result by then, and gives this process a few seconds to end."""

_is_trial_process = False


def is_trial_process() -> bool:
    """True in a process that was started for one trial, and in the copies that it makes of itself."""
    return _is_trial_process


class TrialProcess:
    """One trial that was started."""

    def __init__(self, end: socket.socket, pid: int, wait: Callable[[int], int | None]) -> None:
        self.pipe = Pipe(end)
        self.pid = pid
        self._wait = wait
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status as `subprocess` has it, if it has ended; below 0 the signal that ended it."""
        return self._ended(os.WNOHANG)

    def kill(self) -> None:
        """Kills it, and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._status is None:  # afterwards the id may be another process's
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # before it has a group of its own

    def end(self) -> int | None:
        """Kills what is left; returns its exit status."""
        self.kill()
        status = self._ended(0)
        self.pipe.close()
        return status

    def _ended(self, options: int) -> int | None:
        """The kernel gives the status of a child once."""
        if self._status is None:
            self._status = self._wait(options)
        return self._status


class Launcher:
    """Starts trials of one objective. Raises InvalidInput for one that must be sent to a new interpreter and cannot."""

    def __init__(self, objective: Objective, *, spawn: bool) -> None:
        self._objective = objective
        self._spawn = spawn
        self._pickled: bytes | None = None
        if self.spawns:
            self._pickled = _pickled(objective)

    @property
    def spawns(self) -> bool:
        """True when the next trial gets a new interpreter."""
        return self._spawn or _cannot_be_forked()

    def start(self, task: TrialTask) -> TrialProcess:
        """Raises OSError when there can be no further process."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                if not self.spawns:
                    return _forked(ours, theirs, self._objective, task)
                self._pickled = self._pickled or _pickled(self._objective)
                return _spawned(ours, theirs, pickle.dumps((task, self._pickled)), task.environment)
        except BaseException:
            ours.close()
            raise


def artifact_limit() -> int:
    """HIGHNOON_ARTIFACT_LIMIT_BYTES; its default where the settings are wrong, which is reported at their store."""
    from highnoon.shared.runtime.settings import load_settings  # takes its time, and few trials save files

    try:
        return load_settings().artifact_limit_bytes
    except InvalidInput:
        return NO_CHECKPOINTS.artifact_bytes


def run_spawned(descriptor: int, payload: int, parent: int) -> NoReturn:
    """The main function of a new interpreter."""
    with os.fdopen(payload, "rb") as file:
        file.seek(0)
        task, pickled = pickle.loads(file.read())  # noqa: S301 - from its parent, in a file without a name
    _run_to_end(socket.socket(fileno=descriptor), parent, lambda: pickle.loads(pickled), task)  # noqa: S301


def _cannot_be_forked() -> bool:
    """True once a library has started threads or devices here that it needs, and that no fork inherits."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return tensorflow_has_run() or (cuda is not None and bool(cuda.is_initialized()))


def _pickled(objective: Objective) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(objective))
    except Exception as error:  # user code: whatever their objects raise
        raise InvalidInput.of(
            "optimize()",
            "objective",
            f"cannot be sent to a process of its own ({type(error).__name__}: {error})",
            hint="Create what it uses (models, locks, open files) inside of it, or run one trial at a time "
            'with isolation="none".',
        ) from None


def _forked(ours: socket.socket, theirs: socket.socket, objective: Objective, task: TrialTask) -> TrialProcess:
    for stream in (sys.stdout, sys.stderr):  # or the copy would print it a second time
        with contextlib.suppress(Exception):
            stream.flush()
    end_openmp_threads()
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python warns of threads: a notebook's threads are of no use to a trial, others are refused above.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Python calls functions around a fork, and drops what a signal's handler raises in one of them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            pid = os.fork()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if pid == 0:
        _run_to_end(theirs, parent, lambda: objective, task)

    def wait(options: int) -> int | None:
        try:
            waited, status = os.waitpid(pid, options)
        except ChildProcessError:  # the program reaps children itself
            return -signal.SIGKILL
        return os.waitstatus_to_exitcode(status) if waited else None

    return TrialProcess(ours, pid, wait)


def _spawned(
    ours: socket.socket, theirs: socket.socket, payload: bytes, environment: Mapping[str, str]
) -> TrialProcess:
    sent = os.memfd_create("highnoon-objective")
    try:
        with open(sent, "wb", closefd=False) as file:
            file.write(payload)
        folders = [one for one in sys.path if isinstance(one, str)]  # imports ignore all others
        program = (
            f"import sys; sys.path[:] = {folders!r}; from highnoon.local.process import run_spawned; "
            f"run_spawned({theirs.fileno()}, {sent}, {os.getpid()})"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=(theirs.fileno(), sent),
            start_new_session=True,
            env={**os.environ, **environment},
        )
    finally:
        os.close(sent)
    return TrialProcess(ours, process.pid, lambda options: process.poll() if options else process.wait())


def _run_to_end(end: socket.socket, parent: int, load: Callable[[], Objective], task: TrialTask) -> NoReturn:
    """The trial process, to its end. Never returns: unwinding would run its parent's stack a second time."""
    global _is_trial_process
    _is_trial_process = True
    exit_status = 70
    try:
        _detach(parent)
        forget_exit_functions()
        os.environ.update(task.environment)
        channel = PipeChannel(Pipe(end))
        channel.result(_outcome(load, task, channel))
        exit_status = _RESULT_SENT
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        leave(exit_status, as_interpreter=exit_status == _RESULT_SENT)


def _outcome(load: Callable[[], Objective], task: TrialTask, channel: PipeChannel) -> Outcome:
    try:
        objective = load()
    except Exception as error:  # user code: whatever the import of its modules raises
        message = f"the objective could not be loaded in a new process: {type(error).__name__}: {error}"
        return Outcome(ending=Ending.FAILED, cause=Cause.OBJECTIVE, message=message, traceback=user_traceback(error))
    # A copy has its parent's generators, and all trials would draw the same numbers.
    seed_libraries(task.repeats.seed)
    return run_task(objective, task, channel, channel, artifact_limit)


def _detach(parent: int) -> None:
    """A session of its own, so that Ctrl-C reaches the parent alone; the kernel ends it with its parent."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_RESULT_SENT)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
