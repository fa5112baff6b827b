"""Callbacks: reports of trainings in many frameworks, loggers that a study calls after each trial, `follow`.

Each is imported when it is first used: those for Keras need it, others import their package when they are made, and no
logger does before it has a trial to write.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import nearest
from highnoon.shared.runtime.extras import missing_extra_named

if TYPE_CHECKING:
    from highnoon.callbacks.boosting_reports import LightGBMReport as LightGBMReport
    from highnoon.callbacks.boosting_reports import XGBoostReport as XGBoostReport
    from highnoon.callbacks.csv_logger import CSVLogger as CSVLogger
    from highnoon.callbacks.following import follow as follow
    from highnoon.callbacks.keras_report import Report as Report
    from highnoon.callbacks.memory_guard import MemoryGuardCallback as MemoryGuardCallback
    from highnoon.callbacks.mlflow_logger import MLflowLogger as MLflowLogger
    from highnoon.callbacks.partial_fitting import partial_fit as partial_fit
    from highnoon.callbacks.tensorboard_logger import TensorBoardLogger as TensorBoardLogger
    from highnoon.callbacks.torch_reports import LightningReport as LightningReport
    from highnoon.callbacks.torch_reports import TransformersReport as TransformersReport
    from highnoon.callbacks.wandb_logger import WandbLogger as WandbLogger

_MODULES = {
    "CSVLogger": "csv_logger",
    "LightGBMReport": "boosting_reports",
    "LightningReport": "torch_reports",
    "MLflowLogger": "mlflow_logger",
    "MemoryGuardCallback": "memory_guard",
    "Report": "keras_report",
    "TensorBoardLogger": "tensorboard_logger",
    "TransformersReport": "torch_reports",
    "WandbLogger": "wandb_logger",
    "XGBoostReport": "boosting_reports",
    "follow": "following",
    "partial_fit": "partial_fitting",
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
