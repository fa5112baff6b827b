"""The trial process: user code, a pipe to its supervisor, and nothing else.

Holds no database or broker connection and no credential. Entered by a fork (`run_forked`), by a new interpreter
(`spawned`), both of which are given their assignment as the pipe's first line, or, with isolation "none", by a thread
of the supervisor (`perform`).
"""

from __future__ import annotations

import gc
import multiprocessing.process
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from highnoon.shared.domain.errors import ObjectiveError
from highnoon.shared.domain.memory_sizes import NO_WISHES, MemoryWishes
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome, Params
from highnoon.shared.objective.attempt import UNSCORED, run_attempt
from highnoon.shared.objective.reference import load
from highnoon.shared.objective.seeds import seed_libraries, seed_python
from highnoon.shared.objective.trial_pipe import Pipe, PipeChannel
from highnoon.shared.runtime.logs import configure
from highnoon.shared.runtime.processes import die_with_parent
from highnoon.workers import kernel
from highnoon.workers.trial.script import become_script, borrowed, loggers_as_configured

_RESULT_SENT = 0

SHORT_PATH = ".short-path"
"""In the scratch folder a link to the folder in which its short path is, where it has one."""

_LONGEST_SCRATCH = 64
"""Of the 107 bytes that the path of a unix socket may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """All that a trial process gets. JSON-able, and free of secrets."""

    study: str
    ticket: int
    attempt: int
    trial_number: int
    objective: str
    code_dir: str | None
    params: Params
    seed: int
    work_dir: str
    checkpoint_dir: str
    scoring: Scoring = UNSCORED
    memory: MemoryWishes = NO_WISHES
    cgroup: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Assignment:
        """The inverse of `to_json`. Raises TypeError for what another version wrote."""
        return cls(**{**data, "scoring": Scoring(**data["scoring"]), "memory": MemoryWishes(**data["memory"])})


def run_forked(end: socket.socket, output: int, parent: int) -> NoReturn:
    """The child of a fork, to its end. Never returns: unwinding would run its parent's stack a second time."""
    _run_to_end(end, output, parent, forked=True)


def spawned(descriptor: int, parent: int) -> NoReturn:
    """The main function of a new interpreter (isolation "spawn")."""
    _run_to_end(socket.socket(fileno=descriptor), None, parent, forked=False)


def _run_to_end(end: socket.socket, output: int | None, parent: int, *, forked: bool) -> NoReturn:
    exit_code = 70
    try:
        _detach(parent, output)
        if forked:
            kernel.release_inherited(keep=(end.fileno(),))
            _lift_limits_of_billiard()
        else:
            configure()
        pipe = Pipe(end)
        assignment = Assignment.from_json(pipe.receive(None)[0]["assignment"])
        if assignment.cgroup is not None:
            kernel.join_cgroup(assignment.cgroup)
        _enter_work_dir(assignment)
        channel = PipeChannel(pipe)
        channel.hello()
        channel.result(perform(assignment, channel))
        exit_code = _RESULT_SENT
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(exit_code)


def perform(assignment: Assignment, channel: PipeChannel, *, in_thread: bool = False) -> Outcome:
    """Loads the objective, seeds, runs it. Never raises for what the user's code does."""
    ref, folder = ObjectiveRef.parse(assignment.objective), Path(assignment.code_dir) if assignment.code_dir else None
    seed_python(assignment.seed)
    with ExitStack() as script:
        try:
            if in_thread:
                script.enter_context(borrowed(ref, folder))
            else:
                become_script(ref, folder)
            objective = load(ref, folder)
        except ObjectiveError as error:
            return Outcome(ending=Ending.FAILED, cause="objective", message=str(error), traceback=_cause_of(error))
        if not in_thread:
            loggers_as_configured()
        seed_libraries(assignment.seed)
        return run_attempt(
            objective,
            assignment.params,
            channel,
            assignment.scoring,
            memory=assignment.memory,
            checkpoints=Path(assignment.checkpoint_dir),
        )


def _detach(parent: int, output: int | None) -> None:
    """Detaches from the supervisor in everything but the pipe; ends this process with its parent."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_RESULT_SENT)
    kernel.restore_signals()
    if output is not None:
        os.setsid()
        _redirect(output)
    kernel.prefer_as_oom_victim()


def _redirect(output: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _enter_work_dir(assignment: Assignment) -> None:
    scratch = Path(assignment.work_dir, "tmp")
    scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(assignment.work_dir)
    os.environ.update(
        HIGHNOON_STUDY=assignment.study,
        HIGHNOON_TICKET=str(assignment.ticket),
        HIGHNOON_ATTEMPT=str(assignment.attempt),
        HIGHNOON_CHECKPOINT_DIR=assignment.checkpoint_dir,
        HIGHNOON_WORK_DIR=assignment.work_dir,
        TMPDIR=str(_short(scratch)),
    )
    tempfile.tempdir = None


def _short(scratch: Path) -> Path:
    """The same folder by a path that leaves room for the names of unix sockets, which multiprocessing puts there."""
    if len(os.fsencode(scratch)) <= _LONGEST_SCRATCH:
        return scratch
    link = Path(tempfile.mkdtemp(prefix="highnoon-"), "tmp")
    link.symlink_to(scratch)
    (scratch / SHORT_PATH).symlink_to(link.parent)
    return link


def _lift_limits_of_billiard() -> None:
    """It makes its children daemons, which may have no children, and gives them a key of its own type, which
    multiprocessing cannot send to a child that it spawns: data loaders need both."""
    module: Any = multiprocessing.process
    config = module.current_process()._config
    config["daemon"] = False
    config["authkey"] = module.AuthenticationString(os.urandom(32))
    sys.exit = _system_exit


def _system_exit(status: object = None, /) -> NoReturn:
    """Python's own `sys.exit`, which billiard replaces in its children."""
    raise SystemExit(status)


def _cause_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error.__cause__))[-8000:] if error.__cause__ is not None else ""


def _leave(exit_code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    gc.disable()
    os._exit(exit_code)
