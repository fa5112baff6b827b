"""Model shapes by name. The names are the guide's labels; `count_parameters` says how large each really is."""

from __future__ import annotations

from highnoon.config import ModelConfig
from highnoon.shared.domain.errors import InvalidInput, Problem, nearest

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


def preset(name: str) -> ModelConfig:
    """The shape of that name, with or without `highnoon-` before it. Raises InvalidInput with the nearest name."""
    found = PRESETS.get(name.lower().removeprefix(_PREFIX))
    if found is None:
        hint = nearest(name.removeprefix(_PREFIX), PRESETS)
        raise InvalidInput("preset", [Problem(key="name", message="is not a known preset", value=name, hint=hint)])
    return found
