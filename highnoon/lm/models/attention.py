"""The attention mixer: each token reads all tokens before it, by content and by distance."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from highnoon.config import ModelConfig
from highnoon.lm.models.initial import fan_in, residual

_ROTARY_BASE = 10_000.0


class AttentionMixer(keras.layers.Layer):
    """`[batch, seq, embedding_dim]` to the same: causal, `num_heads` heads, rotary angles for the order."""

    def __init__(self, config: ModelConfig, dtype: Any = None) -> None:
        super().__init__(name="attention", dtype=dtype)
        self._heads, self._dim = config.num_heads, config.embedding_dim
        self._project_in = keras.layers.Dense(
            3 * self._dim, use_bias=False, kernel_initializer=fan_in(self._dim), name="project_in", dtype=dtype
        )
        self._project_out = keras.layers.Dense(
            self._dim,
            use_bias=False,
            kernel_initializer=residual(self._dim, config),
            name="project_out",
            dtype=dtype,
        )

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Makes the weights for the last axis of `shape`."""
        self._project_in.build(shape)
        self._project_out.build(shape)

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Mixes each token with those before it."""
        batch, seq = tf.unstack(tf.shape(tokens)[:2])
        width = self._dim // self._heads
        parts = tf.reshape(self._project_in(tokens), [batch, seq, 3, self._heads, width])
        queries, keys, values = tf.unstack(tf.einsum("bsphw->pbhsw", parts))
        scores = tf.matmul(rotated(queries) * width**-0.5, rotated(keys), transpose_b=True)
        causal = tf.range(seq)[:, None] >= tf.range(seq)
        weights = tf.nn.softmax(tf.where(causal, tf.cast(scores, tf.float32), -float("inf")))
        read = tf.matmul(tf.cast(weights, values.dtype), values)
        return self._project_out(tf.reshape(tf.einsum("bhsw->bshw", read), tf.shape(tokens)))


def rotated(heads: tf.Tensor) -> tf.Tensor:
    """`[batch, heads, seq, width]` turned by its position: a product of two then depends on their distance alone.

    An odd channel at the end stays as it is.
    """
    half = heads.shape[-1] // 2
    position = tf.range(tf.shape(heads)[2], dtype=tf.float32)
    angles = position[:, None] * _ROTARY_BASE ** (-tf.range(half, dtype=tf.float32) / max(half, 1))
    cosine, sine = tf.cast(tf.cos(angles), heads.dtype), tf.cast(tf.sin(angles), heads.dtype)
    first, second, odd = tf.split(heads, [half, half, heads.shape[-1] - 2 * half], axis=-1)
    return tf.concat([first * cosine - second * sine, second * cosine + first * sine, odd], axis=-1)
