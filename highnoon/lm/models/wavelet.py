"""The wavelet mixer: the recent past split into bands from fine to coarse, each with a gain of its own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from highnoon.config import ModelConfig
from highnoon.lm.models.convolution import causal_convolution
from highnoon.lm.models.initial import fan_in, residual
from highnoon.lm.models.shapes import WAVELET_LEVELS, WAVELET_TAPS


class WaveletMixer(keras.layers.Layer):
    """`[batch, seq, embedding_dim]` to the same, by an undecimated causal filter bank with learnt low-passes."""

    def __init__(self, config: ModelConfig, dtype: Any = None) -> None:
        super().__init__(name="wavelet", dtype=dtype)
        self._dim = config.embedding_dim
        self._gate = keras.layers.Dense(
            self._dim, use_bias=False, kernel_initializer=fan_in(self._dim), name="gate", dtype=dtype
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
        self._gate.build(shape)
        self._project_out.build(shape)
        filters = (WAVELET_LEVELS, WAVELET_TAPS, self._dim)
        self._low_passes = self.add_weight(shape=filters, initializer=_binomial, name="low_passes")
        self._gains = self.add_weight(shape=(WAVELET_LEVELS + 1, self._dim), initializer=_apart, name="gains")

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Mixes each token with the 28 before it."""
        return self._project_out(self._convolved(tokens) * tf.nn.silu(self._gate(tokens)))

    def _convolved(self, tokens: tf.Tensor) -> tf.Tensor:
        gains = tf.unstack(tf.convert_to_tensor(self._gains))
        rest, mixed = tokens, tf.zeros_like(tokens)
        for level, low_pass in enumerate(tf.unstack(tf.convert_to_tensor(self._low_passes))):
            smooth = causal_convolution(rest, low_pass, dilation=2**level)
            mixed += gains[level] * (rest - smooth)
            rest = smooth
        return mixed + gains[-1] * rest


def _binomial(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Smoothing filters."""
    taps = np.array([1, 4, 6, 4, 1], np.float32) / 16
    return np.broadcast_to(taps[:, None], shape).copy()


def _apart(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """The finer a band, the louder. Equal gains would add up to the input and leave the filters no gradient."""
    return np.broadcast_to(1 / np.arange(1, shape[0] + 1, dtype=np.float32)[:, None], shape).copy()
