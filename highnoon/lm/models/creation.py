"""`create_model`, from a preset's name, a configuration or a table to a built model, and `load_model`, from a file.

Owns what may be given and how overrides are laid over it; says the size that was counted, never a label.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from highnoon.config import Config, ModelConfig
from highnoon.lm.forecast import refuse_model
from highnoon.lm.models.size import active_parameters, count_parameters
from highnoon.lm.presets import preset
from highnoon.rehearsal import smaller
from highnoon.running import report_params
from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.objective.trial_context import is_trial_running

if TYPE_CHECKING:
    from highnoon.lm.models.hsmn import HSMN

log = logging.getLogger(__name__)


def create_model(config: Config | ModelConfig | Mapping[str, Any] | str = "small", **overrides: Any) -> HSMN:
    """A built HSMN; overrides are fields of ModelConfig and win. Raises InvalidInput with all problems.

    Inside a trial it also says the model's size, as `report_params` does, and raises what that raises. What cannot fit
    into memory is not built: TrialStopped inside a trial, DoesNotFit elsewhere.
    """
    from highnoon.lm.models.hsmn import HSMN

    shape = smaller(overridden(_model_part(config), overrides))
    total, active = count_parameters(shape), active_parameters(shape)
    if is_trial_running():
        # What an efficiency score needs; a hard budget ends the trial here, before anything is built.
        report_params(total, active)
    refuse_model(shape)
    log.info("action=create_model parameters=%d active=%d blocks=%d", total, active, shape.num_reasoning_blocks)
    return HSMN(shape)


def load_model(path: str | os.PathLike[str]) -> HSMN:
    """The model that `model.save(path)` wrote, a `.keras` file. Raises InvalidInput where there is no such model."""
    import keras

    from highnoon.lm.models.hsmn import HSMN

    try:
        model = keras.saving.load_model(path)
    except (OSError, ValueError) as error:
        raise InvalidInput(str(path), [Problem(key="file", message=f"is no saved model: {error}")]) from error
    if not isinstance(model, HSMN):
        raise InvalidInput(str(path), [Problem(key="file", message=f"holds a {type(model).__name__}, not an HSMN")])
    return model


def overridden(config: ModelConfig, overrides: Mapping[str, Any]) -> ModelConfig:
    """The configuration with other values, under either spelling. Raises InvalidInput."""
    replaced = {ModelConfig.other_spellings.get(name, name) for name in overrides}
    kept = {name: value for name, value in config.to_dict().items() if name not in replaced}
    return ModelConfig(**{**kept, **overrides})


def _model_part(config: object) -> ModelConfig:
    if isinstance(config, str):
        return preset(config)
    if isinstance(config, ModelConfig):
        return config
    if isinstance(config, Config):
        return config.model
    if isinstance(config, Mapping):
        return Config.from_dict(config).model
    hint = "Give a preset's name, a Config, a ModelConfig or a table of their fields."
    raise InvalidInput("create_model", [Problem(key="config", message="is none", value=config, hint=hint)])
