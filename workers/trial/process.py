"""The trial process: user code, a pipe to its supervisor, and nothing else.

Holds no database or broker connection and no credential. Entered by a fork (`run_forked`), by a new interpreter
(`spawned`), both of which are given their assignment as the pipe's first line, or, with isolation "none", by a thread
of the supervisor (`perform`).
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from highnoon.shared.domain.errors import ObjectiveError
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.tracebacks import user_traceback
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.defined_trial import takes_trial
from highnoon.shared.objective.reference import load
from highnoon.shared.objective.running_trial import CHECKPOINT_VARIABLE
from highnoon.shared.objective.seeds import seed_libraries, seed_python
from highnoon.shared.objective.trial_pipe import Pipe, PipeChannel
from highnoon.shared.objective.trial_task import TrialTask, run_task
from highnoon.shared.runtime.logs import configure
from highnoon.shared.runtime.processes import die_with_parent, forget_exit_functions, leave
from highnoon.workers import kernel
from highnoon.workers.trial.confinement import Confinement, begun, confine
from highnoon.workers.trial.script import become_script, borrowed, loggers_as_configured

_RESULT_SENT = 0
"""The supervisor has the result by then, and gives this process HIGHNOON_KILL_GRACE_S to end."""

NO_SPACE = (
    "the study has no search_space, and its objective takes no trial: write a search_space, or name the objective's "
    "argument trial to suggest parameters as in Optuna"
)
_FAULT = 70
"""Of ours, before or after the objective."""

SAVED_FILES = ("tmp", "saved")
"""Below the working directory: copies of what the trial saves, until they are stored."""

SHORT_PATH = ".short-path"
"""In the scratch folder a link to the folder in which its short path is, where it has one."""

_LONGEST_SCRATCH = 64
"""Of the 107 bytes that the path of a unix socket may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """All that a trial process gets. JSON-able, and free of secrets."""

    task: TrialTask
    ticket: int
    attempt: int
    objective: str
    code_dir: str | None
    code_is_bundle: bool = False
    work_dir: str
    cgroup: str | None = None
    confinement: Confinement | None = None
    """Of its process; a thread cannot be confined."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Assignment:
        """The inverse of `to_json`. Raises TypeError for what another version wrote."""
        task, confinement = TrialTask.from_json(data["task"]), Confinement.from_json(data["confinement"])
        return cls(**{**data, "task": task, "confinement": confinement})

    @property
    def checkpoint_dir(self) -> str:
        """Each attempt has one."""
        assert self.task.checkpoints is not None
        return self.task.checkpoints


def run_forked(
    orders: socket.socket, parent: int, confinement: Confinement | None, cgroup: str | None = None
) -> NoReturn:
    """The child of a fork, to its end. Never returns: unwinding would run its parent's stack a second time.

    Prepares itself, joins the cgroup that its attempt will probably have, sends a byte on `orders` when it is ready,
    and waits there for its pipe and the descriptor of its output.
    """
    exit_code = _FAULT
    try:
        _detach(parent)
        os.setsid()
        kernel.release_inherited(keep=(orders.fileno(),))
        joined = cgroup if cgroup is not None and kernel.join_cgroup(cgroup) else None
        # Its own: with that of another trial it could run code in the processes that multiprocessing starts for it.
        multiprocessing.process.current_process().authkey = os.urandom(32)
        forget_exit_functions()
        ruleset = None if confinement is None else begun(confinement)
        end, output = _awaited(orders)
        _redirect(output)
        exit_code = _run(socket.socket(fileno=end), ruleset, joined)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        leave(exit_code, as_interpreter=exit_code == _RESULT_SENT)


def _awaited(orders: socket.socket) -> list[int]:
    """The two descriptors; ends this process when its server ends without a trial for it."""
    with orders, contextlib.suppress(OSError):
        orders.send(b"R")
        _, descriptors, _, _ = socket.recv_fds(orders, 1, 2)
        if descriptors:
            for descriptor in descriptors:  # programs that the objective runs must not inherit them
                os.set_inheritable(descriptor, False)
            return descriptors
    os._exit(_RESULT_SENT)


def spawned(descriptor: int, parent: int) -> NoReturn:
    """The main function of a new interpreter (isolation "spawn")."""
    exit_code = _FAULT
    try:
        _detach(parent)
        configure()
        exit_code = _run(socket.socket(fileno=descriptor))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        leave(exit_code, as_interpreter=exit_code == _RESULT_SENT)


def _run(end: socket.socket, ruleset: int | None = None, joined: str | None = None) -> int:
    """The trial whose assignment is the first line on `end`, in a process that has `joined` a cgroup. Returns the exit
    status."""
    pipe = Pipe(end)
    assignment = Assignment.from_json(pipe.receive(None)[0]["assignment"])
    if assignment.cgroup not in (None, joined):
        kernel.join_cgroup(assignment.cgroup)
    _enter_work_dir(assignment)
    _confine(assignment, ruleset)
    channel = PipeChannel(pipe)
    channel.hello()
    channel.result(perform(assignment, channel))
    return _RESULT_SENT


def perform(assignment: Assignment, channel: PipeChannel, *, in_thread: bool = False) -> Outcome:
    """Loads the objective, seeds, runs it. Never raises for what the user's code does."""
    ref, folder = ObjectiveRef.parse(assignment.objective), Path(assignment.code_dir) if assignment.code_dir else None
    task = assignment.task
    seed_python(task.repeats.seed)
    with ExitStack() as script:
        try:
            if in_thread:
                script.enter_context(borrowed(ref, folder))
            else:
                become_script(ref, folder)
            objective = load(ref, folder)
            if task.defines_by_run and not takes_trial(objective):
                raise ObjectiveError(NO_SPACE)
        except ObjectiveError as error:
            shown = "" if error.__cause__ is None else user_traceback(error.__cause__)
            return Outcome(ending=Ending.FAILED, cause=Cause.OBJECTIVE, message=str(error), traceback=shown)
        if not in_thread:
            loggers_as_configured()
        seed_libraries(task.repeats.seed)
        return run_task(objective, task, channel, channel)


def _detach(parent: int) -> None:
    """Detaches from the supervisor; ends this process with its parent."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_RESULT_SENT)
    kernel.restore_signals()
    kernel.prefer_as_oom_victim()


def _redirect(output: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _enter_work_dir(assignment: Assignment) -> None:
    scratch = os.path.join(assignment.work_dir, "tmp")  # noqa: PTH118 (each trial pays for the pages of pathlib)
    os.makedirs(scratch, exist_ok=True)  # noqa: PTH103
    os.chdir(assignment.work_dir)
    environ = {
        **assignment.task.environment,
        "HIGHNOON_STUDY": assignment.task.study,
        "HIGHNOON_TICKET": str(assignment.ticket),
        "HIGHNOON_ATTEMPT": str(assignment.attempt),
        CHECKPOINT_VARIABLE: assignment.checkpoint_dir,
        "HIGHNOON_WORK_DIR": assignment.work_dir,
        "TMPDIR": scratch if len(os.fsencode(scratch)) <= _LONGEST_SCRATCH else _shorter(Path(scratch)),
    }
    for name, value in environ.items():  # `update` would ask for an abstract class, which visits all classes there are
        os.environ[name] = value
    tempfile.tempdir = None


def _confine(assignment: Assignment, ruleset: int | None) -> None:
    if assignment.confinement is None:
        return
    os.makedirs(assignment.checkpoint_dir, exist_ok=True)  # noqa: PTH103
    ref, code_dir = ObjectiveRef.parse(assignment.objective), assignment.code_dir
    file = [os.path.dirname(os.path.join(code_dir or "/", ref.where))] if ref.is_file else []  # noqa: PTH118, PTH120
    code = file if code_dir is None else [code_dir, *file]
    owned, bundle = (assignment.work_dir, assignment.checkpoint_dir), code_dir if assignment.code_is_bundle else None
    confine(assignment.confinement, ruleset, owned=owned, read=code, bundle=bundle)


def _shorter(scratch: Path) -> str:
    """The same folder by a path that leaves room for the names of unix sockets, which multiprocessing puts there."""
    above = tempfile.gettempdir()
    if len(os.fsencode(above)) > _LONGEST_SCRATCH // 2:  # the node's own folder, which may be as long
        above = "/tmp"  # noqa: S108 (a folder of its own is made there)
    link = Path(tempfile.mkdtemp(prefix="highnoon-", dir=above), "tmp")
    link.symlink_to(scratch)
    (scratch / SHORT_PATH).symlink_to(link.parent)
    return str(link)
