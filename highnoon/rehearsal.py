"""The rehearsal: HIGHNOON_REHEARSAL=1 runs a whole script in small, to see that it works before a long run.

`HPOTrialManager.optimize` runs fewer trials, `create_model` builds a smaller model, `Trainer` reads less text. Each
limits what was asked for; nothing is made larger. What a real run has stored is not replaced. No TensorFlow.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import InvalidInput

if TYPE_CHECKING:
    from highnoon.config import ModelConfig

REHEARSAL = "HIGHNOON_REHEARSAL"
REHEARSAL_TRIALS = 2
REHEARSAL_SEQUENCE = 64
REHEARSAL_TOKENS_PER_EPOCH = 1024
REHEARSAL_FOLDER = "rehearsal"
_REHEARSAL_DIM, _REHEARSAL_EXPERTS = 64, 2
_REHEARSAL_BLOCKS = 3
"""One of each mixer."""


def is_rehearsal() -> bool:
    """True when HIGHNOON_REHEARSAL is 1. Raises InvalidInput for anything but 1 and 0."""
    value = os.environ.get(REHEARSAL, "").strip()
    if value not in ("", "0", "1"):
        raise InvalidInput.of("environment", REHEARSAL, "must be 1 or 0", value=value)
    return value == "1"


def limited_in_rehearsal(wanted: int, limit: int) -> int:
    """The smaller of the two in a rehearsal, else what was wanted."""
    return min(wanted, limit) if is_rehearsal() else wanted


def apart_in_rehearsal(folder: Path) -> Path:
    """Returns `folder/rehearsal` in a rehearsal, else `folder`."""
    return folder / REHEARSAL_FOLDER if is_rehearsal() else folder


def reduced_in_rehearsal(config: ModelConfig) -> ModelConfig:
    """The model to build: in a rehearsal within its limits, heads and experts still fitting; else the same.

    The vocabulary stays: a tokenizer has as many ids as it has.
    """
    if not is_rehearsal():
        return config
    dim, experts = min(config.embedding_dim, _REHEARSAL_DIM), min(config.num_moe_experts, _REHEARSAL_EXPERTS)
    return config.model_copy(
        update={
            "embedding_dim": dim,
            "num_reasoning_blocks": min(config.num_reasoning_blocks, _REHEARSAL_BLOCKS),
            "num_moe_experts": experts,
            "top_k_experts": min(config.top_k_experts, experts),
            "num_heads": max(heads for heads in range(1, min(config.num_heads, dim) + 1) if dim % heads == 0),
        }
    )
