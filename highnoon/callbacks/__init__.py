"""Callbacks: loggers that a study calls after each trial, `follow` for a cluster's study, a memory guard for `fit`.

Each is imported when it is first used: one needs Keras, and no logger imports its package before it has a trial to
write.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import nearest
from highnoon.shared.runtime.extras import missing_extra_named

if TYPE_CHECKING:
    from highnoon.callbacks.csv_logger import CSVLogger as CSVLogger
    from highnoon.callbacks.following import follow as follow
    from highnoon.callbacks.memory_guard import MemoryGuardCallback as MemoryGuardCallback
    from highnoon.callbacks.mlflow_logger import MLflowLogger as MLflowLogger
    from highnoon.callbacks.tensorboard_logger import TensorBoardLogger as TensorBoardLogger
    from highnoon.callbacks.wandb_logger import WandbLogger as WandbLogger

_MODULES = {
    "CSVLogger": "csv_logger",
    "MLflowLogger": "mlflow_logger",
    "MemoryGuardCallback": "memory_guard",
    "TensorBoardLogger": "tensorboard_logger",
    "WandbLogger": "wandb_logger",
    "follow": "following",
}

__all__ = [*_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    """The public name, from its module. Raises AttributeError with the nearest name there is."""
    if name not in _MODULES:
        hint = "" if name.startswith("_") else f". {nearest(name, _MODULES)}"
        raise AttributeError(f"module 'highnoon.callbacks' has no attribute {name!r}{hint}")
    with missing_extra_named(f"highnoon.callbacks.{name}"):
        found: object = getattr(importlib.import_module(f"highnoon.callbacks.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
