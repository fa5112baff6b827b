"""The three mixers of the reasoning blocks: attention, Mamba-2 and wavelet. Each is causal.

A mixer turns `[batch, seq, embedding_dim]` into the same shape; a token reads itself and the tokens before it. Owns
also what the layers of the model share: the projections and where the weights start.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from highnoon.config import ModelConfig
from highnoon.lm.models.size import SCAN_CHUNK, WAVELET_LEVELS, WAVELET_TAPS

_ROTARY_BASE = 10_000.0
_SHORTEST_STEP, _LONGEST_STEP = 1e-3, 1e-1
_SLOWEST_RATE, _FASTEST_RATE = 1.0, 16.0
"""Where training starts: from heads that remember a thousand tokens to heads that forget the last one."""

_FORGOTTEN = -128.0
"""The logarithm of 0 in float32; steps beyond it would only make the sums too large to be exact."""


def fan_in(inputs: int) -> Any:
    """The initializer that keeps the variance of `inputs` independent inputs."""
    return keras.initializers.RandomNormal(stddev=inputs**-0.5)


def residual(inputs: int, config: ModelConfig) -> Any:
    """For the last matrix of a branch: all branches together add about as much variance as the embedding has."""
    branches = 2 * config.num_reasoning_blocks
    return keras.initializers.RandomNormal(stddev=(inputs * branches) ** -0.5)


def projection(width: int, initializer: Any, name: str, dtype: Any) -> Any:
    """A matrix without a bias."""
    return keras.layers.Dense(width, use_bias=False, kernel_initializer=initializer, name=name, dtype=dtype)


def transposed(axes: str, tensor: tf.Tensor) -> tf.Tensor:
    """Axes in another order, "bsh->bhs" as in `tf.einsum`, in one operation forward and few backward."""
    before, after = axes.split("->")
    return tf.transpose(tensor, [before.index(axis) for axis in after])


class AttentionMixer(keras.layers.Layer):
    """Reads by content and by distance: `num_heads` heads, rotary angles for the order."""

    def __init__(self, config: ModelConfig, dtype: Any = None) -> None:
        super().__init__(name="attention", dtype=dtype)
        self._heads, self._dim = config.num_heads, config.embedding_dim
        self._project_in = projection(3 * self._dim, fan_in(self._dim), "project_in", dtype)
        self._project_out = projection(self._dim, residual(self._dim, config), "project_out", dtype)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Creates the weights for the last axis of `shape`."""
        self._project_in.build(shape)
        self._project_out.build(shape)

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Mixes each token with those before it."""
        batch, seq, _ = keras.ops.shape(tokens)
        width = self._dim // self._heads
        parts = tf.reshape(self._project_in(tokens), [batch, seq, 3, self._heads, width])
        queries, keys, values = tf.unstack(transposed("bsphw->pbhsw", parts))
        scores = tf.matmul(rotated(queries) * width**-0.5, rotated(keys), transpose_b=True)
        causal = tf.range(seq)[:, None] >= tf.range(seq)
        weights = tf.nn.softmax(tf.where(causal, tf.cast(scores, tf.float32), -float("inf")))
        read = tf.matmul(tf.cast(weights, values.dtype), values)
        return self._project_out(tf.reshape(transposed("bhsw->bshw", read), [batch, seq, self._dim]))


def rotated(heads: tf.Tensor) -> tf.Tensor:
    """`[batch, heads, seq, width]` turned by its position: a product of two then depends on their distance alone.

    An odd channel at the end stays as it is.
    """
    half = heads.shape[-1] // 2
    position = tf.range(keras.ops.shape(heads)[2], dtype=tf.float32)
    angles = position[:, None] * _ROTARY_BASE ** (-tf.range(half, dtype=tf.float32) / max(half, 1))
    cosine, sine = tf.cast(tf.cos(angles), heads.dtype), tf.cast(tf.sin(angles), heads.dtype)
    first, second, odd = tf.split(heads, [half, half, heads.shape[-1] - 2 * half], axis=-1)
    return tf.concat([first * cosine - second * sine, second * cosine + first * sine, odd], axis=-1)


class MambaMixer(keras.layers.Layer):
    """A selective state space: each token decides what to write, how fast to forget and what to read.

    One decay per head, one state of `mamba_d_state` per channel.
    """

    def __init__(self, config: ModelConfig, dtype: Any = None) -> None:
        super().__init__(name="mamba", dtype=dtype)
        self._width = config.mamba_expand * config.embedding_dim
        self._state = config.mamba_d_state
        self._heads = config.num_heads
        self._taps = config.mamba_d_conv
        width_in = 2 * self._width + 2 * self._state + self._heads
        self._project_in = projection(width_in, fan_in(config.embedding_dim), "project_in", dtype)
        self._project_out = projection(config.embedding_dim, residual(self._width, config), "project_out", dtype)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Creates the weights for the last axis of `shape`."""
        convolved, heads = self._width + 2 * self._state, (self._heads,)
        self._project_in.build(shape)
        self._project_out.build((*shape[:-1], self._width))
        self._conv_taps = self.add_weight(shape=(self._taps, convolved), initializer=fan_in(self._taps), name="taps")
        self._conv_bias = self.add_weight(shape=(convolved,), initializer="zeros", name="conv_bias")
        # Decays are compounded over whole sequences: they stay in float32 under mixed precision.
        self._a_log = self.add_weight(shape=heads, initializer=_initial_rates, name="a_log", autocast=False)
        self._step_bias = self.add_weight(shape=heads, initializer=_initial_steps, name="step_bias", autocast=False)
        self._skip = self.add_weight(shape=heads, initializer="ones", name="skip")

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Mixes each token with those before it."""
        width, state = self._width, self._state
        gate, mixed, step = tf.split(self._project_in(tokens), [width, width + 2 * state, self._heads], axis=-1)
        mixed = tf.nn.silu(causal_convolution(mixed, self._conv_taps) + self._conv_bias)
        values, writes, reads = tf.split(mixed, [width, state, state], axis=-1)
        batch, seq, _ = keras.ops.shape(values)
        values = tf.reshape(values, [batch, seq, self._heads, self._width // self._heads])
        scanned = selective_scan(
            tf.cast(values, tf.float32),
            tf.nn.softplus(tf.cast(step, tf.float32) + self._step_bias),
            -tf.exp(tf.convert_to_tensor(self._a_log)),
            tf.cast(writes, tf.float32),
            tf.cast(reads, tf.float32),
        )
        out = tf.cast(scanned, values.dtype) + values * self._skip[:, None]
        return self._project_out(tf.reshape(out, [batch, seq, width]) * tf.nn.silu(gate))


def _initial_rates(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return np.log(np.linspace(_SLOWEST_RATE, _FASTEST_RATE, shape[0])).astype(np.float32)


def _initial_steps(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """The biases for which softplus gives the steps."""
    steps = np.geomspace(_SHORTEST_STEP, _LONGEST_STEP, shape[0])
    return (steps + np.log(-np.expm1(-steps))).astype(np.float32)


def selective_scan(
    values: tf.Tensor, steps: tf.Tensor, rates: tf.Tensor, writes: tf.Tensor, reads: tf.Tensor, chunk: int = SCAN_CHUNK
) -> tf.Tensor:
    """The selective scan of Mamba-2 as matrix products: state space duality (Dao and Gu, 2024).

        state[t] = exp(steps[t] * rate) * state[t-1] + steps[t] * writes[t] (outer) values[t]
        out[t]   = reads[t] . state[t]

    Within a chunk the recurrence is one masked matrix product, as in attention; from chunk to chunk it is the same
    product again, over whole chunks. Nothing is stepped through, so that forward and backward run at matrix speed.
    Everything is float32, whatever the model computes in.

    Gives `[batch, seq, heads, width]` from values of that shape. steps `[batch, seq, heads]` are above 0, rates
    `[heads]` below; writes and reads `[batch, seq, state]` serve all heads. Any length will do.
    """
    length = keras.ops.shape(values)[1]
    inflow = _by_head(_in_chunks(values * steps[..., None], chunk))
    decay = transposed("bcqh->bchq", _in_chunks(steps * rates, chunk))
    writes = _in_chunks(writes, chunk)[:, :, None]
    reads = _in_chunks(reads, chunk)[:, :, None]

    between, since_start = decay_between(decay)
    within = tf.matmul(tf.matmul(reads, writes, transpose_b=True) * between, inflow)
    left_behind = tf.matmul(writes, inflow * between[..., -1, :, None], transpose_a=True)
    carried = tf.matmul(reads * since_start[..., None], _carried(left_behind, decay))
    return _in_sequence(within + carried, length)


def decay_between(decay: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What is left at i of what came in at j, `[..., n, n]`, and of what was there before the first, `[..., n]`.

    Zero for j > i. `decay` holds the logarithm of each step's decay. Sums of hundreds would swallow the small
    differences that count after a strong decay, so whole numbers, which add exactly, and rests are summed apart.
    """
    decay = tf.maximum(decay, _FORGOTTEN)
    whole = tf.stop_gradient(tf.round(decay))
    wholes, rests = tf.cumsum(whole, axis=-1), tf.cumsum(decay - whole, axis=-1)
    exponents = _differences(wholes) + _differences(rests)
    size = keras.ops.shape(decay)[-1]
    causal = tf.range(size)[:, None] >= tf.range(size)
    # Masked before exp: above the diagonal the exponents are positive and would overflow.
    return tf.exp(tf.where(causal, exponents, -float("inf"))), tf.exp(wholes + rests)


def _differences(sums: tf.Tensor) -> tf.Tensor:
    return sums[..., :, None] - sums[..., None, :]


def _carried(left_behind: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """The state before each chunk, `[batch, chunks, heads, state, width]`, from what each chunk adds to it."""
    over_chunks = transposed("bch->bhc", tf.reduce_sum(decay, axis=-1))
    between, _ = decay_between(over_chunks)
    at_end = tf.einsum("bhij,bjhsw->bihsw", between, left_behind)
    return tf.pad(at_end[:, :-1], [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]])


def _in_chunks(sequence: tf.Tensor, chunk: int) -> tf.Tensor:
    """`[batch, chunks, chunk, ...]`; the padding has steps of 0, which neither decay nor write."""
    batch, length, *rest = keras.ops.shape(sequence)
    missing = -length % chunk
    padded = tf.pad(sequence, [[0, 0], [0, missing], *[[0, 0]] * len(rest)])
    return tf.reshape(padded, [batch, (length + missing) // chunk, chunk, *rest])


def _by_head(chunks: tf.Tensor) -> tf.Tensor:
    return transposed("bcqhw->bchqw", chunks)


def _in_sequence(chunks: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """The inverse of `_in_chunks` and `_by_head`."""
    batch, count, heads, chunk, width = keras.ops.shape(chunks)
    flat = tf.reshape(transposed("bchqw->bcqhw", chunks), [batch, count * chunk, heads, width])
    return flat[:, :length]


class WaveletMixer(keras.layers.Layer):
    """The last 28 tokens split into bands from fine to coarse, each with its own gain.

    An undecimated causal filter bank with trained low-passes.
    """

    def __init__(self, config: ModelConfig, dtype: Any = None) -> None:
        super().__init__(name="wavelet", dtype=dtype)
        self._dim = config.embedding_dim
        self._gate = projection(self._dim, fan_in(self._dim), "gate", dtype)
        self._project_out = projection(self._dim, residual(self._dim, config), "project_out", dtype)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Creates the weights for the last axis of `shape`."""
        self._gate.build(shape)
        self._project_out.build(shape)
        filters = (WAVELET_LEVELS, WAVELET_TAPS, self._dim)
        self._low_passes = self.add_weight(shape=filters, initializer=_binomial, name="low_passes")
        self._gains = self.add_weight(shape=(WAVELET_LEVELS + 1, self._dim), initializer=_falling, name="gains")

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


def _falling(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """The finer a band, the larger its gain. Equal gains would add up to the input: no gradient for the filters."""
    return np.broadcast_to(1 / np.arange(1, shape[0] + 1, dtype=np.float32)[:, None], shape).copy()


def causal_convolution(sequence: tf.Tensor, taps: tf.Tensor, dilation: int = 1) -> tf.Tensor:
    """Convolves each channel of `[batch, seq, channels]` with its taps `[k, channels]`; the last is for the token."""
    reach = (taps.shape[0] - 1) * dilation
    padded = tf.pad(sequence, [[0, 0], [reach, 0], [0, 0]])
    # TensorFlow has the depthwise kernel in two dimensions only; it is six times as fast as shifted products.
    convolved = tf.nn.depthwise_conv2d(
        padded[:, :, None], taps[:, None, :, None], strides=[1, 1, 1, 1], padding="VALID", dilations=[dilation, 1]
    )
    return convolved[:, :, 0]
