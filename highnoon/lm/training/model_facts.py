"""What a trainer asks of a model, whether it is ours or any Keras model from ids to logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def config_of(model: Any) -> Mapping[str, Any]:
    """The model's part of the configuration it was built from; empty for a model that carries none."""
    config: Any = getattr(model, "config", None)
    part = getattr(config, "model", config)
    return dict(part.to_dict()) if hasattr(part, "to_dict") else {}


def vocabulary_of(model: Any) -> int:
    """How many ids the model tells apart; a model that does not say is asked for the logits of one token."""
    said = getattr(model, "vocab_size", None)
    if said is None:
        import tensorflow as tf

        said = model(tf.zeros((1, 1), tf.int32), training=False).shape[-1]
    return int(said)


def longest_sequence(model: Any) -> int | None:
    """The longest sequence that the model takes; None when it does not say."""
    said = getattr(model, "max_seq_length", None)
    return None if said is None else int(said)
