"""Processes of Linux: an identity that is never reused, and the signal that ends a process with its parent.

Needs prctl and /proc. Does not decide which process is ended when.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OMP_PAUSE_SOFT = 1
RESTARTS = 5
"""See `dies_at_each_start`."""

_HAS_SAFE_PATH: bool = sys.version_info >= (3, 11)
_libc = ctypes.CDLL(None, use_errno=True)


_only_our_code = False


def declare_only_our_code() -> None:
    """States that this process runs no code of a user, so that hooks for the whole process may be set. At its start.

    A trial does not inherit it: its fork server was forked before the supervisor declared it.
    """
    global _only_our_code
    _only_our_code = True


def runs_only_our_code() -> bool:
    """False in a user's script and in a trial."""
    return _only_our_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A pid with its name and start time: pids are reused, this is not."""

    pid: int
    name: str
    started_ticks: int


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `python -m module`, without the current folder on its import path.

    A file of the user's there (`json.py`, `workers/`) would otherwise hide the module of that name.
    """
    if _HAS_SAFE_PATH:
        return [sys.executable, "-P", "-m", module, *arguments]
    run = f"import sys; del sys.path[0]; import runpy; runpy.run_module({module!r}, None, '__main__', True)"
    return [sys.executable, "-c", run, *arguments]


def dies_at_each_start(starts: Sequence[float]) -> bool:
    """Whether a process that was started at these times, by the monotonic clock, has a fault that no restart repairs.

    That is one that ends more than RESTARTS times within a minute.
    """
    return sum(time.monotonic() - started < 60.0 for started in starts) > RESTARTS


def identify(pid: int) -> Identity | None:
    """The identity of a running process; None when there is none, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, rest = text.split("(", 1)[1].rsplit(")", 1)
    state, *fields = rest.split()
    return None if state in "ZX" else Identity(pid=pid, name=name, started_ticks=int(fields[18]))


def signal_name(signum: int) -> str:
    """SIGKILL, SIGRTMIN+3: Python has no names for most real-time signals."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"SIGRTMIN+{signum - signal.SIGRTMIN}"


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Asks the kernel to send `signum` to this process when its parent's thread ends. Not inherited by children.

    The parent may be dead already: compare `os.getppid()` afterwards. Raises OSError when the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signum))


def adopt_orphans() -> None:
    """Makes what loses its parent below this process a child of this one, also a daemon in a session of its own.

    Not inherited by children. Raises OSError when the kernel refuses.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def forget_exit_functions() -> None:
    """In a forked child: what its parent has registered for its end, and the files it has open, are not the child's."""
    atexit._clear()
    # The executors of its parent, whose locks other threads may have held.
    for module, executors in (("thread", "_threads_queues"), ("process", "_threads_wakeups")):
        getattr(sys.modules.get(f"concurrent.futures.{module}"), executors, {}).clear()
    for loky in ("joblib.externals.loky", "loky"):
        # Its one executor for all calls: this process has none of the threads that serve it, and would wait for ever.
        if (reusable := sys.modules.get(f"{loky}.reusable_executor")) is not None:
            reusable._executor = None  # type: ignore[attr-defined]
    if "multiprocessing.util" in sys.modules:
        atexit.register(_unlink_semaphores)
    gc.freeze()


def _unlink_semaphores() -> None:
    """This process's own, which loky has. All other finalizers may wait: for a pool whose processes ignore SIGTERM."""
    for finalizer in list(sys.modules["multiprocessing.util"]._finalizer_registry.values()):
        if getattr(finalizer._callback, "__qualname__", None) == "SemLock._cleanup":
            with contextlib.suppress(OSError):  # it is gone
                finalizer()


def leave(exit_status: int, *, as_interpreter: bool) -> NoReturn:
    """Ends this process by `os._exit`: unwinding would run the stack of its parent a second time.

    With `as_interpreter` it does before what an interpreter does at its end: waits for threads and executors, runs
    `atexit`, flushes files left open. That may take for ever: the caller's parent must kill it after a while. So what
    was written until now is flushed first.
    """
    if as_interpreter:
        _finish()
    _flush(sys.stdout, sys.stderr)
    os._exit(exit_status)


def _finish() -> None:
    _flush(sys.stdout, sys.stderr, *_open_files())
    with contextlib.suppress(BaseException):  # they are user code
        threading._shutdown()  # type: ignore[attr-defined]  # no public function waits for executors too
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    _flush(*_open_files())


def _open_files() -> list[Any]:
    """Those that this process has opened itself."""
    return [one for one in gc.get_objects() if type(one) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)]


def _flush(*files: Any) -> None:
    for file in files:
        with contextlib.suppress(Exception):
            file.flush()


def tensorflow_has_run() -> bool:
    """True when TensorFlow, if imported at all, has initialised its runtime (threads, devices)."""
    eager = sys.modules.get("tensorflow.python.eager.context")
    context = getattr(eager, "_context", None)
    return context is not None and getattr(context, "_context_handle", None) is not None


def _note_fork() -> None:
    global _was_forked
    _was_forked = True


_was_forked = False
os.register_at_fork(after_in_child=_note_fork)


def end_openmp_threads() -> None:
    """Ends the idle threads that GNU OpenMP keeps for this thread, before a fork; the next parallel loop starts others.

    LightGBM, XGBoost, scikit-learn and PyTorch use it. A forked process would wait for ever for threads that it does
    not have; so would this function, and does nothing there. Nor for a libgomp before GCC 9.
    """
    if _was_forked:
        return
    with Path("/proc/self/maps").open(errors="surrogateescape") as maps:
        paths = {line.split(maxsplit=5)[-1].rstrip("\n") for line in maps if "libgomp" in line}
    for path in paths:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(path, mode=os.RTLD_NOLOAD).omp_pause_resource_all(_OMP_PAUSE_SOFT)
