"""One reasoning block: a mixer, then a mixture of experts, each added to what came in."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from highnoon.config import ModelConfig
from highnoon.lm.models.attention import AttentionMixer
from highnoon.lm.models.experts import MixtureOfExperts
from highnoon.lm.models.mamba import MambaMixer
from highnoon.lm.models.wavelet import WaveletMixer

NORM_EPSILON = 1e-6

_MIXERS: dict[str, Any] = {"mamba": MambaMixer, "attention": AttentionMixer, "wavelet": WaveletMixer}


class ReasoningBlock(keras.layers.Layer):
    """`[batch, seq, embedding_dim]` to the same, normalised before each part, with dropout after it."""

    def __init__(self, config: ModelConfig, mixer: str, name: str, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._mixer_norm = keras.layers.LayerNormalization(epsilon=NORM_EPSILON, name="mixer_norm", dtype=dtype)
        self._mixer = _MIXERS[mixer](config, dtype=dtype)
        self._experts_norm = keras.layers.LayerNormalization(epsilon=NORM_EPSILON, name="experts_norm", dtype=dtype)
        self._experts = MixtureOfExperts(config, dtype=dtype)
        self._dropout = keras.layers.Dropout(config.dropout_rate, name="dropout", dtype=dtype)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Makes the weights of all parts."""
        for part in (self._mixer_norm, self._mixer, self._experts_norm, self._experts, self._dropout):
            part.build(shape)

    def call(self, tokens: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        """Both parts, one after the other."""
        tokens += self._dropout(self._mixer(self._mixer_norm(tokens)), training=training)
        return tokens + self._dropout(self._experts(self._experts_norm(tokens), training=training), training=training)
