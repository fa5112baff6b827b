"""Model shapes by name, and what else may be given where a model's configuration is expected. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

from highnoon.config import Config, ModelConfig
from highnoon.shared.domain.errors import InvalidInput, nearest

_PREFIX = "highnoon-"
_HEAD_WIDTH = 64


def _shape(dim: int, blocks: int, experts: int, vocab: int) -> ModelConfig:
    return ModelConfig(
        embedding_dim=dim,
        num_reasoning_blocks=blocks,
        num_moe_experts=experts,
        vocab_size=vocab,
        num_heads=dim // _HEAD_WIDTH,
    )


PRESETS: dict[str, ModelConfig] = {
    "small": _shape(512, 4, 4, 32_000),
    "base": _shape(768, 6, 8, 32_000),
    "3b": _shape(2048, 12, 8, 50_000),
    "7b": _shape(3072, 16, 12, 50_000),
    "13b": _shape(4096, 20, 12, 60_000),
    "20b": _shape(4096, 24, 12, 60_000),
}
"""Model shapes by the guide's labels; `count_parameters` gives the real size of each."""


def preset(name: str) -> ModelConfig:
    """The preset of that name, with or without `highnoon-` before it. Raises InvalidInput with the nearest name."""
    found = PRESETS.get(name.lower().removeprefix(_PREFIX))
    if found is None:
        hint = nearest(name.removeprefix(_PREFIX), PRESETS)
        raise InvalidInput.of("preset", "name", "is not a known preset", value=name, hint=hint)
    return found


def model_part(config: object) -> ModelConfig:
    """The shape of a preset's name, a configuration or a table. Raises InvalidInput."""
    if isinstance(config, str):
        return preset(config)
    if isinstance(config, ModelConfig):
        return config
    if isinstance(config, Config):
        return config.model
    if isinstance(config, Mapping):
        return Config.from_dict(config).model
    hint = "Give a preset's name, a Config, a ModelConfig or a table of their fields."
    raise InvalidInput.of("model", "config", "is not a model configuration", value=config, hint=hint)
