"""The self-test of a node with GPUs: can a child that is forked from the warm pool use one?

TensorFlow is imported in the pool and never run there, which forks survive on all machines that we know. A driver that
thinks otherwise would hang every trial, so one child tries before the node takes any.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from highnoon.shared.runtime.processes import signal_name

LIMIT_S = 60.0
_KILLED_WITHIN_S = 1.0


def flaw_of_forks(operation: Callable[[], None], limit_s: float = LIMIT_S) -> str:
    """Runs `operation` in a forked child of this one thread; why it did not come back well, empty when it did."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try(operation, writing)
    os.close(writing)
    child = os.pidfd_open(pid)
    try:
        if not select.select([child], [], [], limit_s)[0]:
            os.kill(pid, signal.SIGKILL)
            # One that hangs in the driver (state D) is left behind.
            if select.select([child], [], [], _KILLED_WITHIN_S)[0]:
                os.waitpid(pid, 0)
            return f"it did not come back within {limit_s:g} s"
        _, status = os.waitpid(pid, 0)
        reason = os.read(reading, 4096).decode(errors="replace")
        return "" if status == 0 else reason or f"the child ended with {_ending(status)}"
    finally:
        os.close(child)
        os.close(reading)


def uses_gpu(uuid: str) -> None:
    """One operation on that GPU, by TensorFlow. Raises whatever TensorFlow raises, RuntimeError where it finds none."""
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    tensorflow: Any = importlib.import_module("tensorflow")
    if not tensorflow.config.list_physical_devices("GPU"):
        raise RuntimeError("TensorFlow finds no GPU")
    tensorflow.config.set_soft_device_placement(False)
    with tensorflow.device("/GPU:0"):
        total = float(tensorflow.reduce_sum(tensorflow.ones((8, 8))))
    if total != 64.0:
        raise RuntimeError(f"the sum of 64 ones on the GPU is {total:g}")


def _try(operation: Callable[[], None], writing: int) -> None:
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        operation()
        status = 0
    except BaseException as error:
        os.write(writing, traceback.format_exception_only(error)[-1].strip()[:4000].encode())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal_name(os.WTERMSIG(status))
    return f"status {os.WEXITSTATUS(status)}"
