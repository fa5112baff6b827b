"""The GPUs of a node: which slot gets which, and how a supervisor finds its own.

A slot is pinned to one GPU by the UUID that the driver gives it. A supervisor has no slot number: the pool
replaces its children in any order. So it takes the first GPU that is free, by a lock that ends with its process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from highnoon.shared.domain.errors import HighNoonError, InvalidInput
from highnoon.shared.memory.gpu import GpuDevice, Gpus
from highnoon.shared.runtime.logs import event
from highnoon.workers.node import Node

_log = logging.getLogger("highnoon.workers.gpus")

_WAIT_S = 10.0
"""A replaced supervisor may take a moment to die; one that does not keeps its GPU."""


def gpu_slots(wanted: str, *, slots_per_gpu: int, gpus: Gpus) -> tuple[str, ...]:
    """For each slot the UUID of its GPU, the first slots on different ones. Raises InvalidInput for what is missing."""
    chosen = _chosen(wanted, _devices(wanted, gpus))
    return tuple(device.uuid for _ in range(slots_per_gpu) for device in chosen)


def _devices(wanted: str, gpus: Gpus) -> tuple[GpuDevice, ...]:
    if not gpus.is_readable:
        raise _refused(wanted, "needs the NVIDIA driver's library", "Install it with pip install nvidia-ml-py.")
    devices = gpus.devices()
    if not devices:
        why = f"no GPU can be used here ({gpus.trouble or 'the driver shows none'})"
        raise _refused(wanted, why, "nvidia-smi shows what this machine or container has; CUDA_VISIBLE_DEVICES hides.")
    return devices


def _chosen(wanted: str, devices: tuple[GpuDevice, ...]) -> list[GpuDevice]:
    """By number or UUID, each once. Numbers count the GPUs that are visible to the worker."""
    if wanted.strip() == "all":
        return list(devices)
    known = {**{str(number): device for number, device in enumerate(devices)}, **{one.uuid: one for one in devices}}
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    missing = [name for name in names if name not in known]
    if missing or not names:
        there = ", ".join(f"{number} ({device.name})" for number, device in enumerate(devices))
        message = f"there is no GPU {', '.join(missing)}" if missing else "names no GPU"
        raise _refused(wanted, message, f"This machine has {there}; all takes every one.")
    return list({known[name].uuid: known[name] for name in names}.values())


def _refused(wanted: str, message: str, hint: str) -> InvalidInput:
    return InvalidInput.of("command line", "--gpus", message, value=wanted, hint=hint)


class NoFreeGpu(HighNoonError):
    """Every GPU slot of the node is taken. The message is dropped; the coordinator sends it again."""


@dataclass(frozen=True, slots=True)
class GpuClaim:
    """A slot of this process until it ends; the lock goes with the file."""

    uuid: str
    lock: TextIO
    environ: Mapping[str, str]
    """Shows a process this GPU alone."""


def pin(node: Node) -> GpuClaim | None:
    """Claims a GPU slot and shows this process that GPU alone; None where slots are not pinned.

    Once for each process, before anything has started CUDA; its fork server needs `environ` too. Raises NoFreeGpu.
    """
    if not node.gpus:
        return None
    claim = _claimed(node.folder / "gpus", node.gpus)
    os.environ.update(claim.environ)
    event(_log, "gpu", worker=node.worker_id[:8], pid=os.getpid(), gpu=claim.uuid)
    return claim


def _claimed(folder: Path, gpus: tuple[str, ...]) -> GpuClaim:
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _WAIT_S
    while True:
        for number, uuid in enumerate(gpus):
            lock = _locked(folder / f"{number}.lock")
            if lock is not None:
                return GpuClaim(uuid, lock, _environ(uuid, is_shared=gpus.count(uuid) > 1))
        if time.monotonic() > deadline:
            raise NoFreeGpu(f"all {len(gpus)} GPU slots of this node are taken")
        time.sleep(0.02)


def _environ(uuid: str, *, is_shared: bool) -> dict[str, str]:
    environ = {"CUDA_VISIBLE_DEVICES": uuid}
    if is_shared:
        # TensorFlow takes a whole card at its first operation unless it is configured to share it.
        environ["TF_FORCE_GPU_ALLOW_GROWTH"] = os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    return environ


def _locked(path: Path) -> TextIO | None:
    """With a record lock: it belongs to this process alone, and what it forks does not keep it."""
    file = path.open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
