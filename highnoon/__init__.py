"""HighNoon HPO, as a scientist imports it: `import highnoon as hn`.

Only the names are here. What stands behind one is imported when it is first used, so that an objective file
that imports this package costs a trial process next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import nearest

if TYPE_CHECKING:
    from highnoon import callbacks as callbacks
    from highnoon.config import Config as Config
    from highnoon.config import ModelConfig as ModelConfig
    from highnoon.config import TrainingConfig as TrainingConfig
    from highnoon.lm.data import TextDataset as TextDataset
    from highnoon.lm.data import register_dataset as register_dataset
    from highnoon.lm.models.creation import create_model as create_model
    from highnoon.lm.models.creation import load_model as load_model
    from highnoon.lm.models.memory import estimate_memory as estimate_memory
    from highnoon.lm.models.size import active_parameters as active_parameters
    from highnoon.lm.models.size import count_parameters as count_parameters
    from highnoon.lm.presets import PRESETS as PRESETS
    from highnoon.lm.spaces import hsmn_search_space as hsmn_search_space
    from highnoon.lm.tokenizer import ByteStreamTokenizer as ByteStreamTokenizer
    from highnoon.lm.tokenizer import QWTTextTokenizer as QWTTextTokenizer
    from highnoon.lm.training.trainer import Trainer as Trainer
    from highnoon.manager import HPOTrialManager as HPOTrialManager
    from highnoon.memory import EnterpriseMemoryManager as EnterpriseMemoryManager
    from highnoon.running import checkpoint_dir as checkpoint_dir
    from highnoon.running import report as report
    from highnoon.running import report_params as report_params
    from highnoon.running import should_prune as should_prune
    from highnoon.shared.domain.errors import TrialPruned as TrialPruned

    __version__: str

__all__ = [
    "PRESETS",
    "ByteStreamTokenizer",
    "Config",
    "EnterpriseMemoryManager",
    "HPOTrialManager",
    "ModelConfig",
    "QWTTextTokenizer",
    "TextDataset",
    "Trainer",
    "TrainingConfig",
    "TrialPruned",
    "__version__",
    "active_parameters",
    "callbacks",
    "checkpoint_dir",
    "count_parameters",
    "create_model",
    "estimate_memory",
    "hsmn_search_space",
    "load_model",
    "register_dataset",
    "report",
    "report_params",
    "should_prune",
]

_HOMES = {
    "EnterpriseMemoryManager": "highnoon.memory",
    "PRESETS": "highnoon.lm.presets",
    "ByteStreamTokenizer": "highnoon.lm.tokenizer",
    "Config": "highnoon.config",
    "HPOTrialManager": "highnoon.manager",
    "ModelConfig": "highnoon.config",
    "QWTTextTokenizer": "highnoon.lm.tokenizer",
    "TextDataset": "highnoon.lm.data",
    "Trainer": "highnoon.lm.training.trainer",
    "TrainingConfig": "highnoon.config",
    "TrialPruned": "highnoon.shared.domain.errors",
    "active_parameters": "highnoon.lm.models.size",
    "checkpoint_dir": "highnoon.running",
    "count_parameters": "highnoon.lm.models.size",
    "create_model": "highnoon.lm.models.creation",
    "estimate_memory": "highnoon.lm.models.memory",
    "hsmn_search_space": "highnoon.lm.spaces",
    "load_model": "highnoon.lm.models.creation",
    "register_dataset": "highnoon.lm.data",
    "report": "highnoon.running",
    "report_params": "highnoon.running",
    "should_prune": "highnoon.running",
}

_NEED_TENSORFLOW = {"Trainer", "create_model", "load_model"}

_MODULES = {"callbacks"}
"""Reached as `hn.callbacks`, and imported then."""


def __getattr__(name: str) -> object:
    """The public name, from its module. Raises AttributeError with the nearest name there is."""
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("highnoon-hpo")
    elif name in _MODULES or name in _HOMES:
        from highnoon.shared.runtime.extras import missing_extra_named

        with missing_extra_named(f"highnoon.{name}"):
            if name in _NEED_TENSORFLOW:
                importlib.import_module("tensorflow")
            module = importlib.import_module(_HOMES.get(name, f"highnoon.{name}"))
        found = getattr(module, name) if name in _HOMES else module
    else:
        hint = "" if name.startswith("_") else f". {nearest(name, [*_HOMES, *_MODULES])}"
        raise AttributeError(f"module 'highnoon' has no attribute {name!r}{hint}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
