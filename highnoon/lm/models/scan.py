"""The selective scan of Mamba-2 as matrix products: state space duality (Dao and Gu, 2024).

    state[t] = exp(steps[t] * rate) * state[t-1] + steps[t] * writes[t] (outer) values[t]
    out[t]   = reads[t] . state[t]

Within a chunk the recurrence is one masked matrix product, as in attention; from chunk to chunk it is the same
product again, over whole chunks. Nothing is stepped through, so that forward and backward run at matrix speed.
Everything is float32, whatever the model computes in.
"""

from __future__ import annotations

import tensorflow as tf

from highnoon.lm.models.size import SCAN_CHUNK

_FORGOTTEN = -128.0
"""The logarithm of 0 in float32; steps beyond it would only make the sums too large to be exact."""


def selective_scan(
    values: tf.Tensor, steps: tf.Tensor, rates: tf.Tensor, writes: tf.Tensor, reads: tf.Tensor, chunk: int = SCAN_CHUNK
) -> tf.Tensor:
    """`[batch, seq, heads, width]` from values of that shape.

    steps `[batch, seq, heads]` are above 0, rates `[heads]` below; writes and reads `[batch, seq, state]` serve all
    heads. Any length will do.
    """
    length = tf.shape(values)[1]
    inflow = _by_head(_in_chunks(values * steps[..., None], chunk))
    decay = tf.einsum("bcqh->bchq", _in_chunks(steps * rates, chunk))
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
    size = tf.shape(decay)[-1]
    causal = tf.range(size)[:, None] >= tf.range(size)
    # Masked before exp: above the diagonal the exponents are positive and would overflow.
    return tf.exp(tf.where(causal, exponents, -float("inf"))), tf.exp(wholes + rests)


def _differences(sums: tf.Tensor) -> tf.Tensor:
    return sums[..., :, None] - sums[..., None, :]


def _carried(left_behind: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """The state before each chunk, `[batch, chunks, heads, state, width]`, from what each chunk adds to it."""
    over_chunks = tf.einsum("bch->bhc", tf.reduce_sum(decay, axis=-1))
    between, _ = decay_between(over_chunks)
    at_end = tf.einsum("bhij,bjhsw->bihsw", between, left_behind)
    return tf.pad(at_end[:, :-1], [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]])


def _in_chunks(sequence: tf.Tensor, chunk: int) -> tf.Tensor:
    """`[batch, chunks, chunk, ...]`; the padding has steps of 0, which neither decay nor write."""
    shape = tf.shape(sequence)
    missing = -shape[1] % chunk
    padded = tf.pad(sequence, [[0, 0], [0, missing], *[[0, 0]] * (len(sequence.shape) - 2)])
    return tf.reshape(padded, tf.concat([[shape[0], (shape[1] + missing) // chunk, chunk], shape[2:]], axis=0))


def _by_head(chunks: tf.Tensor) -> tf.Tensor:
    return tf.einsum("bcqhw->bchqw", chunks)


def _in_sequence(chunks: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """The inverse of `_in_chunks` and `_by_head`."""
    batch, count, heads, chunk, width = tf.unstack(tf.shape(chunks))
    flat = tf.reshape(tf.einsum("bchqw->bcqhw", chunks), [batch, count * chunk, heads, width])
    return flat[:, :length]
