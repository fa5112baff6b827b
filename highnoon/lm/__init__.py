"""The language model of the guide: models, data, tokenizer, training, and its search space. Imports no TensorFlow."""

from __future__ import annotations

from typing import Any

hsmn_search_space: dict[str, tuple[Any, ...]] = {
    # Model architecture
    "embedding_dim": ("categorical", [512, 768, 1024, 2048]),
    "num_reasoning_blocks": ("int", 4, 16),
    "num_moe_experts": ("categorical", [4, 8, 12]),
    # Training
    "learning_rate": ("log_uniform", 1e-5, 1e-3),
    "batch_size": ("categorical", [4, 8, 16]),
    "warmup_steps": ("int", 500, 5000, 500),
    "gradient_clip": ("uniform", 0.5, 2.0),
    "weight_decay": ("log_uniform", 0.001, 0.1),
    # Mamba parameters
    "mamba_d_state": ("categorical", [16, 32, 64]),
    "mamba_d_conv": ("categorical", [3, 4, 5]),
    "mamba_expand": ("int", 2, 4),
    # MoE parameters
    "top_k_experts": ("categorical", [1, 2, 4]),
    "aux_loss_weight": ("log_uniform", 0.001, 0.1),
    # Regularization
    "dropout_rate": ("uniform", 0.0, 0.3),
}
"""All that the guide tunes of the HSMN language model, word for word; a plain dict, to be copied and changed."""
