"""Memory of NVIDIA GPUs, through NVML (package `nvidia-ml-py`, optional). Without it there are simply no GPUs.

TensorFlow takes nearly all of a GPU's memory at its first operation unless configured otherwise, so that "used" means
which process holds the card and not how much a model needs. It is therefore shown and recorded; no trial is stopped
by it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

_AGAIN_S = 10.0
"""After an error the driver is asked again so much later: it may be a reset of one GPU, or there may be none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDevice:
    """One GPU now; its memory may be used by any process. `uuid` is permanent, numbers depend on the driver's order."""

    uuid: str
    name: str
    memory_total_bytes: int
    memory_used_bytes: int


class Gpus:
    """The GPUs that this process may use, by `CUDA_VISIBLE_DEVICES`. Never raises: a driver that fails shows none.

    `library` stands in for the module `pynvml`; `visible` for the variable.
    """

    def __init__(self, library: Any = None, visible: str | None = None) -> None:
        self._library = _pynvml() if library is None else library
        self._visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
        self._handles: list[Any] | None = None
        self._opened_in = 0
        self._trouble = ""
        self._again_at = 0.0

    @property
    def is_readable(self) -> bool:
        """True when NVML is installed."""
        return self._library is not None

    @property
    def trouble(self) -> str:
        """Why nothing could be read, in the driver's words; empty while it answers."""
        return self._trouble

    def devices(self) -> tuple[GpuDevice, ...]:
        """Each visible GPU now, in the order of the driver."""
        if self._library is None or time.monotonic() < self._again_at:
            return ()
        try:
            devices = tuple(map(self._device, self._open()))
        except Exception as error:  # NVML's own errors, of a module that may be absent: no GPU is worth a training
            self._handles, self._trouble, self._again_at = None, str(error), time.monotonic() + _AGAIN_S
            return ()
        self._trouble = ""
        return devices

    def _open(self) -> list[Any]:
        """Handles belong to the process that asked for them: a fork asks again."""
        if self._handles is None or self._opened_in != os.getpid():
            self._library.nvmlInit()
            self._handles, self._opened_in = self._find(), os.getpid()
        return self._handles

    def _find(self) -> list[Any]:
        nvml = self._library
        if self._visible is None:
            return [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        handles = []
        for entry in filter(None, (part.strip() for part in self._visible.split(","))):
            if entry.startswith("-"):
                break  # as CUDA does: what follows an invalid number is invisible
            by_number = entry.isdigit()
            find = nvml.nvmlDeviceGetHandleByIndex if by_number else nvml.nvmlDeviceGetHandleByUUID
            handles.append(find(int(entry) if by_number else entry))
        return handles

    def _device(self, handle: Any) -> GpuDevice:
        memory = self._library.nvmlDeviceGetMemoryInfo(handle)
        return GpuDevice(
            uuid=_text(self._library.nvmlDeviceGetUUID(handle)),
            name=_text(self._library.nvmlDeviceGetName(handle)),
            memory_total_bytes=int(memory.total),
            memory_used_bytes=int(memory.used),
        )


def _text(name: str | bytes) -> str:
    """Older bindings give bytes."""
    return name.decode() if isinstance(name, bytes) else name


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
