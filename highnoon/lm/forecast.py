"""Refusing what cannot fit into memory before it costs anything. Owns the question; the sum is `models.memory`'s.

In a trial that is a stop (`memory_forecast`), told to the sampler with how far it missed; elsewhere it is an error.
Refused is only what would not fit if the forecast were too high by as much as its benchmark allows.
"""

from __future__ import annotations

from typing import Any

from highnoon.config import ModelConfig
from highnoon.lm.models.memory import FLOAT_BYTES, forecast_memory
from highnoon.lm.models.size import count_parameters
from highnoon.shared.domain.errors import DoesNotFit, TrialStopped
from highnoon.shared.domain.memory_sizes import said
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.objective.trial_context import is_trial_running, memory_wishes

_MAY_BE_TOO_HIGH_BY = 0.25
"""The forecast lies within 25 % of a measured peak; tests/integration/test_models_memory.py holds it to that."""


def refuse_model(config: ModelConfig) -> None:
    """Before a model is built: in a trial its training must fit with the least batch, elsewhere at least its weights.

    Raises TrialStopped or DoesNotFit.
    """
    if is_trial_running():
        _refuse(forecast_memory(config, 1, 1).total, config, "training it with batches of a single token")
    else:
        _refuse(count_parameters(config) * FLOAT_BYTES, config, "its weights")


def refuse_training(model: Any, batch_size: int, seq_len: int) -> None:
    """Before a training: for a model of ours, whose configuration is known. Raises TrialStopped or DoesNotFit."""
    config = getattr(model, "config", None)
    if isinstance(config, ModelConfig):
        need = forecast_memory(config, batch_size, seq_len).total
        _refuse(need, config, f"training it with batches of {batch_size} x {seq_len} tokens")


def _refuse(need_bytes: int, config: ModelConfig, what: str) -> None:
    limit_bytes = _limit_bytes()
    if limit_bytes is None or need_bytes <= limit_bytes * (1 + _MAY_BE_TOO_HIGH_BY) or _has_gpu():
        return
    size = f"{said(need_bytes)} ({count_parameters(config):,} parameters)"
    told = f"{what} would take about {size}, limit {said(limit_bytes)}"
    if is_trial_running():
        raise TrialStopped(f"memory_forecast: {told}", constraint=need_bytes / limit_bytes - 1)
    raise DoesNotFit(
        f"the model does not fit into memory: {told}. Choose a smaller batch_size or max_seq_length, fewer "
        "num_reasoning_blocks or num_moe_experts, a smaller embedding_dim or vocab_size, or a machine with more memory"
    )


def _limit_bytes() -> int | None:
    """The least of the machine's memory, its cgroups' and what the trial here may hold; whatever others use of it."""
    limits = (MemoryPoller().limit_bytes(), memory_wishes().trial_memory_limit)
    return min((limit for limit in limits if limit is not None), default=None)


def _has_gpu() -> bool:
    """Then a model lives in the GPU's memory, of which the forecast says nothing."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
