"""`create_model`: a built model from a preset's name, a configuration or a table. `load_model`: one from a file.

Owns how overrides replace parts of what is given. Logs the counted size, never a label.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highnoon.config import Config, ModelConfig
from highnoon.current_trial import report_params
from highnoon.lm.models.presets import model_part
from highnoon.lm.models.size import active_parameters, count_parameters, refuse_model
from highnoon.rehearsal import reduced_in_rehearsal
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.objective.trial_context import is_trial_running

if TYPE_CHECKING:
    from highnoon.lm.models.hsmn import HSMN

log = logging.getLogger(__name__)


def create_model(config: Config | ModelConfig | Mapping[str, Any] | str = "small", **overrides: Any) -> HSMN:
    """A built HSMN; overrides are fields of ModelConfig and win. Raises InvalidInput with all problems.

    Inside a trial it also reports the model's size, as `report_params` does, and raises what that raises. What cannot
    fit into memory is not built: TrialStopped inside a trial, DoesNotFit elsewhere.
    """
    from highnoon.lm.models.hsmn import HSMN

    shape = reduced_in_rehearsal(overridden(model_part(config), overrides))
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

    if "://" not in str(path) and not Path(path).exists():  # Keras reads gs:// and hf://, too
        raise InvalidInput.of(str(path), "file", "there is no such file")
    try:
        model = keras.saving.load_model(path)
    except (OSError, ValueError) as error:
        raise InvalidInput.of(str(path), "file", f"is not a saved model: {error}") from error
    if not isinstance(model, HSMN):
        raise InvalidInput.of(str(path), "file", f"holds a {type(model).__name__}, not an HSMN")
    return model


def overridden(config: ModelConfig, overrides: Mapping[str, Any]) -> ModelConfig:
    """The configuration with other values, under either spelling. Raises InvalidInput."""
    replaced = {ModelConfig.other_spellings.get(name, name) for name in overrides}
    kept = {name: value for name, value in config.to_dict().items() if name not in replaced}
    return ModelConfig(**{**kept, **overrides})
