"""How large a model is, in closed form from its configuration: parameters, and the memory of a training.

Owns one formula per part, and the widths that no field of a configuration names. `hsmn` and the layers beside it are
what is counted; a test compares the count with Keras' own. No TensorFlow.

Refuses what cannot fit into memory before it costs anything: only what would not fit if the forecast were too high by
as much as its test allows. In a trial that is a stop (`memory_forecast`) from which the sampler learns, elsewhere an
error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from highnoon.config import Config, Count, ModelConfig, Section, checked
from highnoon.lm.models.presets import model_part
from highnoon.shared.domain.errors import DoesNotFit, InvalidInput, TrialStopped
from highnoon.shared.domain.memory_sizes import said
from highnoon.shared.domain.states import Cause
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.objective.trial_context import is_trial_running, memory_wishes

Shape = Config | ModelConfig | Mapping[str, Any] | str
"""A preset's name, a configuration, or a table of its fields."""

FEEDFORWARD_FACTOR = 4
"""An expert's inner width over the embedding's."""

WAVELET_LEVELS = 3
WAVELET_TAPS = 5
"""At dilation 1, 2, 4: each token reads 28 tokens before it."""

SCAN_CHUNK = 32
"""Tokens that the scan takes at once. Measured on CPU against 16, 64 and 128: `docs/model.md`."""

FLOAT_BYTES = 4
MIB = 2**20

_RUNTIME_BYTES = 50 * MIB
_GRAPH_BYTES_PER_BLOCK = 25 * MIB
"""Measured: what TensorFlow takes to trace and run a training step at all."""

_MAY_BE_TOO_HIGH_BY = 0.25
"""The forecast is within 25 % of a measured peak; tests/integration/test_models_memory.py checks it."""

_MOMENTS = 2
_GRADIENT_COPIES = 2.35
"""The gradients, the clipped ones, and what is on the way between them; the last part measured."""


class _Batch(Section):
    batch_size: Count
    seq_len: Count


def count_parameters(config: Shape) -> int:
    """Every trainable number of the model, whatever a token uses of it; `config` is what `create_model` takes."""
    config = model_part(config)
    return _without_experts(config) + config.num_reasoning_blocks * config.num_moe_experts * expert_parameters(config)


def active_parameters(config: Shape) -> int:
    """What one token passes through: of each block's experts only the chosen ones."""
    config = model_part(config)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """Bytes at the peak of a training step, beyond what a process with TensorFlow imported holds already.

    One sum per part, in float32 and with AdamW. What is kept for the backward pass follows from the layers; the factors
    marked as measured are fitted to the peak of fresh processes on a CPU (`docs/model.md` has the table, and a test
    holds the forecast within 25 % of a peak).
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    runtime: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.runtime


def estimate_memory(config: Shape, batch_size: int, seq_len: int) -> int:
    """Bytes that training will take beyond the imports; `forecast_memory` names the parts. Raises InvalidInput."""
    batch, problems = checked(_Batch, {"batch_size": batch_size, "seq_len": seq_len})
    if batch is None:
        raise InvalidInput("estimate_memory()", problems)
    return forecast_memory(model_part(config), batch.batch_size, batch.seq_len).total


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
    weights_after_softmax = config.num_heads * seq_len
    beyond_every_block = {"mamba": _kept_by_mamba(config, seq_len), "attention": weights_after_softmax, "wavelet": 0.0}
    kept = sum(beyond_every_block[mixer] for mixer in config.mixers)
    kept += config.num_reasoning_blocks * _kept_by_every_block(config)
    scores_in_passing = 2.5 * config.num_heads * seq_len if "attention" in config.mixers else 0.0  # measured
    logits_and_their_gradient = 1.5 * config.vocab_size  # measured; the gradient takes over the place of the logits
    return kept + scores_in_passing + logits_and_their_gradient


def _kept_by_every_block(config: ModelConfig) -> float:
    """Norms, residuals, dropout and projections; of each chosen expert its inner width before and after GELU."""
    return 14 * config.embedding_dim + 2 * config.top_k_experts * FEEDFORWARD_FACTOR * config.embedding_dim


def _kept_by_mamba(config: ModelConfig, seq_len: int) -> float:
    width = config.mamba_expand * config.embedding_dim
    within_chunks = config.num_heads * min(SCAN_CHUNK, seq_len)
    states = config.num_heads * config.mamba_d_state + 2 * config.mamba_d_state * width / SCAN_CHUNK
    return 10 * width + 4.2 * within_chunks + 1.4 * states


def refuse_model(config: ModelConfig) -> None:
    """Before a model is built: in a trial its training must fit with the least batch, elsewhere at least its weights.

    Raises TrialStopped or DoesNotFit.
    """
    if is_trial_running():
        _refuse(forecast_memory(config, 1, 1).total, config, "training it with batches of a single token")
    else:
        _refuse(count_parameters(config) * FLOAT_BYTES, config, "its weights")


def refuse_training(model: Any, batch_size: int, seq_len: int) -> None:
    """Before a training of an HSMN; other models have no configuration. Raises TrialStopped or DoesNotFit."""
    config = getattr(model, "config", None)
    if isinstance(config, ModelConfig):
        need = forecast_memory(config, batch_size, seq_len).total
        _refuse(need, config, f"training it with batches of {batch_size} x {seq_len} tokens")


def _refuse(need_bytes: int, config: ModelConfig, what: str) -> None:
    limit_bytes = _limit_bytes()
    if limit_bytes is None or need_bytes <= limit_bytes * (1 + _MAY_BE_TOO_HIGH_BY) or _has_gpu():
        return
    size = f"{said(need_bytes)} ({count_parameters(config):,} parameters)"
    need = f"{what} would take about {size}, limit {said(limit_bytes)}"
    if is_trial_running():
        message, constraint = f"memory_forecast: {need}", need_bytes / limit_bytes - 1
        raise TrialStopped(message, constraint=constraint, cause=Cause.MEMORY_FORECAST)
    raise DoesNotFit(
        f"the model does not fit into memory: {need}. Choose a smaller batch_size or max_seq_length, fewer "
        "num_reasoning_blocks or num_moe_experts, a smaller embedding_dim or vocab_size, or a machine with more memory"
    )


def _limit_bytes() -> int | None:
    """The least of the machine's memory, its cgroups' limits and this trial's limit; what others use is ignored."""
    limits = (MemoryPoller().limit_bytes(), memory_wishes().trial_memory_limit)
    return min((limit for limit in limits if limit is not None), default=None)


def _has_gpu() -> bool:
    """Then a model uses the GPU's memory, which the forecast does not cover."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
