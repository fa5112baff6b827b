"""HIGHNOON_REHEARSAL=1: the whole script in small, to see that it runs before a night is spent on it.

Owns the variable and the sizes. `HPOTrialManager.optimize` runs fewer trials, `create_model` builds a smaller model,
`Trainer` reads less text; each caps what was asked for and changes nothing else. Nothing is made larger.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from highnoon.config import ModelConfig

VARIABLE = "HIGHNOON_REHEARSAL"

TRIALS = 2
EMBEDDING_DIM = 64
BLOCKS = 3
"""One of each mixer."""
EXPERTS = 2
VOCAB_SIZE = 512
SEQUENCE = 64
TOKENS_PER_EPOCH = 4096


def rehearsing(environ: dict[str, str] | None = None) -> bool:
    """True when the variable says so. Raises InvalidInput for anything but 1 and 0."""
    told = (os.environ if environ is None else environ).get(VARIABLE, "").strip()
    if told not in ("", "0", "1"):
        raise InvalidInput("environment", [Problem(key=VARIABLE, message="must be 1 or 0", value=told)])
    return told == "1"


def capped(asked: int, cap: int) -> int:
    """The lesser of the two in a rehearsal, and what was asked for otherwise."""
    return min(asked, cap) if rehearsing() else asked


def smaller(config: ModelConfig) -> ModelConfig:
    """The model to build in a rehearsal: no larger than the caps, heads and experts still fitting. Else the same."""
    if not rehearsing():
        return config
    dim, experts = min(config.embedding_dim, EMBEDDING_DIM), min(config.num_moe_experts, EXPERTS)
    return config.model_copy(
        update={
            "embedding_dim": dim,
            "num_reasoning_blocks": min(config.num_reasoning_blocks, BLOCKS),
            "num_moe_experts": experts,
            "top_k_experts": min(config.top_k_experts, experts),
            "num_heads": max(heads for heads in range(1, min(config.num_heads, dim) + 1) if dim % heads == 0),
            "vocab_size": min(config.vocab_size, VOCAB_SIZE),
        }
    )
