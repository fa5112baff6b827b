"""How large a model is, in closed form from its configuration: parameters, equal to Keras' own count. No TensorFlow.

Owns one formula per part, and the widths that no field of a configuration names. `hsmn` and the layers beside it are
what is counted; a test compares the two.
"""

from __future__ import annotations

from highnoon.config import ModelConfig

FEEDFORWARD_FACTOR = 4
"""An expert's inner width over the embedding's."""

WAVELET_LEVELS = 3
WAVELET_TAPS = 5
"""At dilation 1, 2, 4: each token reads 28 tokens before it."""

SCAN_CHUNK = 32
"""Tokens that the scan takes at once. Measured on CPU against 16, 64 and 128: `docs/model.md`."""


def count_parameters(config: ModelConfig) -> int:
    """Every trainable number of the model, whatever a token uses of it."""
    return _without_experts(config) + config.num_reasoning_blocks * config.num_moe_experts * expert_parameters(config)


def active_parameters(config: ModelConfig) -> int:
    """What one token passes through: of each block's experts only the chosen ones."""
    return _without_experts(config) + config.num_reasoning_blocks * config.top_k_experts * expert_parameters(config)


def expert_parameters(config: ModelConfig) -> int:
    """One expert: D to F and back to D, both with biases."""
    dim = config.embedding_dim
    inner = FEEDFORWARD_FACTOR * dim
    return 2 * dim * inner + inner + dim


def _without_experts(config: ModelConfig) -> int:
    embedding = config.vocab_size * config.embedding_dim
    head = 0 if config.tie_embeddings else embedding
    router = config.embedding_dim * config.num_moe_experts
    norms = 4 * config.embedding_dim
    mixers = sum(_MIXERS[mixer](config) for mixer in config.mixers)
    final_norm = 2 * config.embedding_dim
    return embedding + head + final_norm + mixers + config.num_reasoning_blocks * (router + norms)


def _mamba(config: ModelConfig) -> int:
    dim, heads, state = config.embedding_dim, config.num_heads, config.mamba_d_state
    width = config.mamba_expand * dim
    convolved = width + 2 * state
    project_in = dim * (width + convolved + heads)
    convolution = (config.mamba_d_conv + 1) * convolved
    decay_skip_and_step = 3 * heads
    return project_in + convolution + decay_skip_and_step + width * dim


def _attention(config: ModelConfig) -> int:
    return 4 * config.embedding_dim**2


def _wavelet(config: ModelConfig) -> int:
    dim = config.embedding_dim
    low_passes, gains = WAVELET_LEVELS * WAVELET_TAPS * dim, (WAVELET_LEVELS + 1) * dim
    return 2 * dim**2 + low_passes + gains


_MIXERS = {"mamba": _mamba, "attention": _attention, "wavelet": _wavelet}
