"""HighNoon HPO, as a scientist imports it: `import highnoon as hn`.

Only the names are here. Each is imported from its module when it is first used, so that an objective file that imports
this package costs a trial process next to nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import nearest

if TYPE_CHECKING:
    from highnoon import callbacks as callbacks
    from highnoon.config import Config as Config
    from highnoon.config import ModelConfig as ModelConfig
    from highnoon.config import TrainingConfig as TrainingConfig
    from highnoon.current_trial import checkpoint_dir as checkpoint_dir
    from highnoon.current_trial import checkpoint_saved as checkpoint_saved
    from highnoon.current_trial import log as log
    from highnoon.current_trial import report as report
    from highnoon.current_trial import report_params as report_params
    from highnoon.current_trial import save_artifact as save_artifact
    from highnoon.current_trial import scratch_dir as scratch_dir
    from highnoon.current_trial import should_prune as should_prune
    from highnoon.current_trial import trial_seed as trial_seed
    from highnoon.current_trial import trial_settings as trial_settings
    from highnoon.handle import StudyHandle as StudyHandle
    from highnoon.lm import hsmn_search_space as hsmn_search_space
    from highnoon.lm.data import TextDataset as TextDataset
    from highnoon.lm.data import register_dataset as register_dataset
    from highnoon.lm.models.creation import create_model as create_model
    from highnoon.lm.models.creation import load_model as load_model
    from highnoon.lm.models.presets import PRESETS as PRESETS
    from highnoon.lm.models.size import active_parameters as active_parameters
    from highnoon.lm.models.size import count_parameters as count_parameters
    from highnoon.lm.models.size import estimate_memory as estimate_memory
    from highnoon.lm.tokenizer import ByteStreamTokenizer as ByteStreamTokenizer
    from highnoon.lm.tokenizer import QWTTextTokenizer as QWTTextTokenizer
    from highnoon.lm.tokenizer import load_tokenizer as load_tokenizer
    from highnoon.lm.training.trainer import Trainer as Trainer
    from highnoon.manager import HPOTrialManager as HPOTrialManager
    from highnoon.memory import EnterpriseMemoryManager as EnterpriseMemoryManager
    from highnoon.shared.domain.errors import TrialPruned as TrialPruned
    from highnoon.shared.domain.errors import TrialStopped as TrialStopped
    from highnoon.shared.domain.param import Bool as Bool
    from highnoon.shared.domain.param import Categorical as Categorical
    from highnoon.shared.domain.param import Float as Float
    from highnoon.shared.domain.param import Int as Int
    from highnoon.submission import studies as studies
    from highnoon.submission import study as study
    from highnoon.submission import submit as submit

    __version__: str

_NAMES = {
    "config": ("Config", "ModelConfig", "TrainingConfig"),
    "current_trial": (
        "checkpoint_dir",
        "checkpoint_saved",
        "log",
        "report",
        "report_params",
        "save_artifact",
        "scratch_dir",
        "should_prune",
        "trial_seed",
        "trial_settings",
    ),
    "handle": ("StudyHandle",),
    "lm": ("hsmn_search_space",),
    "lm.data": ("TextDataset", "register_dataset"),
    "lm.models.creation": ("create_model", "load_model"),
    "lm.models.presets": ("PRESETS",),
    "lm.models.size": ("active_parameters", "count_parameters", "estimate_memory"),
    "lm.tokenizer": ("ByteStreamTokenizer", "QWTTextTokenizer", "load_tokenizer"),
    "lm.training.trainer": ("Trainer",),
    "manager": ("HPOTrialManager",),
    "memory": ("EnterpriseMemoryManager",),
    "shared.domain.errors": ("TrialPruned", "TrialStopped"),
    "shared.domain.param": ("Bool", "Categorical", "Float", "Int"),
    "submission": ("studies", "study", "submit"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

_NEED_TENSORFLOW = {"Trainer", "create_model", "load_model"}
"""Functions that import it when they are called: without it they are refused before."""

__all__ = ["__version__", "callbacks", *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    """The public name, from its module. Raises AttributeError with the nearest name there is."""
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("highnoon-hpo")
    elif name == "callbacks":
        found = importlib.import_module("highnoon.callbacks")
    elif name in _MODULES:
        from highnoon.shared.runtime.extras import missing_extra_named

        with missing_extra_named(f"highnoon.{name}"):
            if name in _NEED_TENSORFLOW and importlib.util.find_spec("tensorflow") is None:
                raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
            found = getattr(importlib.import_module(f"highnoon.{_MODULES[name]}"), name)
    else:
        hint = "" if name.startswith("_") else f". {nearest(name, __all__)}"
        raise AttributeError(f"module 'highnoon' has no attribute {name!r}{hint}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
