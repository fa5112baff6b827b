"""The Mamba-2 mixer: what to write into a state, how fast to forget it and what to read, decided by each token."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from highnoon.config import ModelConfig
from highnoon.lm.models.convolution import causal_convolution
from highnoon.lm.models.initial import fan_in, residual
from highnoon.lm.models.scan import selective_scan

_SHORTEST_STEP, _LONGEST_STEP = 1e-3, 1e-1
_SLOWEST_RATE, _FASTEST_RATE = 1.0, 16.0
"""Where training starts: from heads that remember a thousand tokens to heads that forget the last one."""


class MambaMixer(keras.layers.Layer):
    """`[batch, seq, embedding_dim]` to the same. One decay per head, one state of `mamba_d_state` per channel."""

    def __init__(self, config: ModelConfig, dtype: Any = None) -> None:
        super().__init__(name="mamba", dtype=dtype)
        self._width = config.mamba_expand * config.embedding_dim
        self._state = config.mamba_d_state
        self._heads = config.num_heads
        self._taps = config.mamba_d_conv
        self._project_in = keras.layers.Dense(
            2 * self._width + 2 * self._state + self._heads,
            use_bias=False,
            kernel_initializer=fan_in(config.embedding_dim),
            name="project_in",
            dtype=dtype,
        )
        self._project_out = keras.layers.Dense(
            config.embedding_dim,
            use_bias=False,
            kernel_initializer=residual(self._width, config),
            name="project_out",
            dtype=dtype,
        )

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Makes the weights for the last axis of `shape`."""
        convolved, heads = self._width + 2 * self._state, (self._heads,)
        self._project_in.build(shape)
        self._project_out.build((*shape[:-1], self._width))
        self._conv_taps = self.add_weight(shape=(self._taps, convolved), initializer=fan_in(self._taps), name="taps")
        self._conv_bias = self.add_weight(shape=(convolved,), initializer="zeros", name="conv_bias")
        # Decays are compounded over whole sequences: they stay in float32 under mixed precision.
        self._a_log = self.add_weight(shape=heads, initializer=_first_rates, name="a_log", autocast=False)
        self._step_bias = self.add_weight(shape=heads, initializer=_first_steps, name="step_bias", autocast=False)
        self._skip = self.add_weight(shape=heads, initializer="ones", name="skip")

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Mixes each token with those before it."""
        width, state = self._width, self._state
        gate, mixed, step = tf.split(self._project_in(tokens), [width, width + 2 * state, self._heads], axis=-1)
        mixed = tf.nn.silu(causal_convolution(mixed, self._conv_taps) + self._conv_bias)
        values, writes, reads = tf.split(mixed, [width, state, state], axis=-1)
        values = self._in_heads(values)
        scanned = selective_scan(
            tf.cast(values, tf.float32),
            tf.nn.softplus(tf.cast(step, tf.float32) + self._step_bias),
            -tf.exp(tf.convert_to_tensor(self._a_log)),
            tf.cast(writes, tf.float32),
            tf.cast(reads, tf.float32),
        )
        out = tf.cast(scanned, values.dtype) + values * self._skip[:, None]
        return self._project_out(tf.reshape(out, tf.shape(gate)) * tf.nn.silu(gate))

    def _in_heads(self, values: tf.Tensor) -> tf.Tensor:
        batch, seq = tf.unstack(tf.shape(values)[:2])
        return tf.reshape(values, [batch, seq, self._heads, self._width // self._heads])


def _first_rates(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return np.log(np.linspace(_SLOWEST_RATE, _FASTEST_RATE, shape[0])).astype(np.float32)


def _first_steps(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """The biases for which softplus gives the steps."""
    steps = np.geomspace(_SHORTEST_STEP, _LONGEST_STEP, shape[0])
    return (steps + np.log(-np.expm1(-steps))).astype(np.float32)
