"""How much memory a training takes, foretold from the configuration alone. No TensorFlow.

Owns one sum per part, in float32 and with AdamW. What is kept for the way back follows from the layers; the factors
marked as measured are fitted to the peak of fresh processes on a CPU (`docs/model.md` has the table, and a test
holds the forecast within 25 % of a peak). It says what a trial will want, not what the machine has.
"""

from __future__ import annotations

from dataclasses import dataclass

from highnoon.config import ModelConfig
from highnoon.lm.models.shapes import FEEDFORWARD_FACTOR, SCAN_CHUNK
from highnoon.lm.models.size import count_parameters

FLOAT_BYTES = 4
MIB = 2**20

_RUNTIME_BYTES = 50 * MIB
_GRAPH_BYTES_PER_BLOCK = 25 * MIB
"""Measured: what TensorFlow takes to trace and run a training step at all."""

_MOMENTS = 2
_GRADIENT_COPIES = 2.35
"""The gradients, the clipped ones, and what is on the way between them; the last part measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """Bytes at the peak of a training step, beyond what a process with TensorFlow imported holds already."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    runtime: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.runtime


def estimate_memory(config: ModelConfig, batch_size: int, seq_len: int) -> int:
    """Bytes that training will take beyond the imports; `forecast_memory` names the parts."""
    return forecast_memory(config, batch_size, seq_len).total


def forecast_memory(config: ModelConfig, batch_size: int, seq_len: int) -> MemoryForecast:
    """Weights, gradients, optimizer, activations and TensorFlow's own share for batches of `[batch_size, seq_len]`."""
    parameters = count_parameters(config) * FLOAT_BYTES
    tokens = batch_size * seq_len
    return MemoryForecast(
        weights=parameters,
        gradients=round(parameters * _GRADIENT_COPIES),
        optimizer=parameters * _MOMENTS,
        activations=round(tokens * _floats_per_token(config, seq_len) * FLOAT_BYTES),
        runtime=_RUNTIME_BYTES + config.num_reasoning_blocks * _GRAPH_BYTES_PER_BLOCK,
    )


def _floats_per_token(config: ModelConfig, seq_len: int) -> float:
    kept = sum(_kept_by_mixer(mixer, config, seq_len) for mixer in config.mixers)
    kept += config.num_reasoning_blocks * _kept_by_every_block(config)
    scores_in_passing = 2.5 * config.num_heads * seq_len if "attention" in config.mixers else 0.0  # measured
    logits_and_their_gradient = 1.5 * config.vocab_size  # measured; the gradient takes over the place of the logits
    return kept + scores_in_passing + logits_and_their_gradient


def _kept_by_every_block(config: ModelConfig) -> float:
    """Norms, residuals, dropout and projections; of each chosen expert its inner width before and after GELU."""
    return 14 * config.embedding_dim + 2 * config.top_k_experts * FEEDFORWARD_FACTOR * config.embedding_dim


def _kept_by_mixer(mixer: str, config: ModelConfig, seq_len: int) -> float:
    """Beyond what every block keeps."""
    if mixer == "mamba":
        return _kept_by_mamba(config, seq_len)
    return config.num_heads * seq_len if mixer == "attention" else 0.0  # the weights after softmax


def _kept_by_mamba(config: ModelConfig, seq_len: int) -> float:
    width = config.mamba_expand * config.embedding_dim
    within_chunks = config.num_heads * min(SCAN_CHUNK, seq_len)
    states = config.num_heads * config.mamba_d_state + 2 * config.mamba_d_state * width / SCAN_CHUNK
    return 10 * width + 4.2 * within_chunks + 1.4 * states
