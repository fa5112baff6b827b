"""The mixture of experts: each token chooses its feed-forward networks, and only those are computed for it.

Token choice without a capacity: no token is dropped, and none can displace another. So later tokens cannot change
earlier ones.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from highnoon.config import ModelConfig
from highnoon.lm.models.mixers import fan_in, residual
from highnoon.lm.models.size import FEEDFORWARD_FACTOR


class MixtureOfExperts(keras.layers.Layer):
    """`[batch, seq, embedding_dim]` to the same. In training it adds its balance loss to the model's `losses`."""

    def __init__(self, config: ModelConfig, dtype: Any = None) -> None:
        super().__init__(name="experts", dtype=dtype)
        self.supports_jit = False  # XLA needs shapes that do not depend on the routing
        self._config = config

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Creates the weights for the last axis of `shape`."""
        experts, dim = self._config.num_moe_experts, self._config.embedding_dim
        inner = FEEDFORWARD_FACTOR * dim
        # In float32 under mixed precision too: a choice between near equals should not depend on rounding.
        self._router = self.add_weight(shape=(dim, experts), initializer=fan_in(dim), name="router", autocast=False)
        self._kernel_in = self.add_weight(shape=(experts, dim, inner), initializer=fan_in(dim), name="kernel_in")
        self._bias_in = self.add_weight(shape=(experts, inner), initializer="zeros", name="bias_in")
        self._kernel_out = self.add_weight(
            shape=(experts, inner, dim), initializer=residual(inner, self._config), name="kernel_out"
        )
        self._bias_out = self.add_weight(shape=(experts, dim), initializer="zeros", name="bias_out")

    def call(self, sequence: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        """Routes, computes, and weighs by the router's probabilities."""
        tokens = tf.reshape(sequence, [-1, self._config.embedding_dim])
        probabilities = tf.nn.softmax(tf.matmul(tf.cast(tokens, tf.float32), self._router))
        gates, chosen = tf.math.top_k(probabilities, self._config.top_k_experts)
        if self._config.top_k_experts > 1:  # a lone gate of always 1 would leave the router without a gradient
            gates /= tf.reduce_sum(gates, axis=-1, keepdims=True)
        if training:
            self.add_loss(self._config.aux_loss_weight * imbalance(probabilities, chosen))
        outputs = self._expert_outputs(tokens, chosen)
        mixed = tf.matmul(tf.cast(gates, outputs.dtype)[:, None], outputs)
        return tf.reshape(mixed, keras.ops.shape(sequence))

    def _expert_outputs(self, tokens: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """`[tokens, k, dim]`: the output of each of its k experts for each token."""
        slots = tf.reshape(chosen, [-1])
        by_expert = tf.argsort(slots, stable=True)
        back = tf.math.invert_permutation(by_expert)
        counts = tf.math.bincount(slots, minlength=self._config.num_moe_experts, maxlength=self._config.num_moe_experts)
        repeated = tf.repeat(tokens, self._config.top_k_experts, axis=0)
        groups = tf.split(_permuted(repeated, by_expert, back), counts, num=self._config.num_moe_experts)
        # Unstacked once: slicing expert by expert would add up one full-sized gradient per expert.
        stacks = (self._kernel_in, self._bias_in, self._kernel_out, self._bias_out)
        experts = zip(*(tf.unstack(tf.convert_to_tensor(stack)) for stack in stacks), strict=True)
        outputs = tf.concat([_feed_forward(group, *expert) for group, expert in zip(groups, experts, strict=True)], 0)
        shape = [-1, self._config.top_k_experts, self._config.embedding_dim]
        return tf.reshape(_permuted(outputs, back, by_expert), shape)


def imbalance(probabilities: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """n * sum(share of the slots * mean probability) over the experts: 1 when balanced, n when one takes all."""
    experts = probabilities.shape[-1]
    share = tf.reduce_mean(tf.one_hot(tf.reshape(chosen, [-1]), experts), axis=0)
    return experts * tf.reduce_sum(share * tf.reduce_mean(probabilities, axis=0))


def _feed_forward(
    tokens: tf.Tensor, kernel_in: tf.Tensor, bias_in: tf.Tensor, kernel_out: tf.Tensor, bias_out: tf.Tensor
) -> tf.Tensor:
    inner = _gelu(tf.nn.bias_add(tf.matmul(tokens, kernel_in), bias_in))
    return tf.nn.bias_add(tf.matmul(inner, kernel_out), bias_out)


@tf.custom_gradient
def _gelu(inputs: tf.Tensor) -> Any:
    """GELU that keeps only its input for the backward pass, where TensorFlow's own keeps five such tensors."""

    def backward(gradient: tf.Tensor) -> tf.Tensor:
        share = 0.5 * (1 + tf.math.erf(inputs * 2**-0.5))
        density = tf.exp(-0.5 * tf.square(inputs)) * (2 * math.pi) ** -0.5
        return gradient * (share + inputs * density)

    return tf.nn.gelu(inputs), backward


@tf.custom_gradient
def _permuted(rows: tf.Tensor, order: tf.Tensor, back: tf.Tensor) -> Any:
    """Rows in another order. TensorFlow would scatter the gradient; here it is the permutation back."""
    return tf.gather(rows, order), lambda gradient: (tf.gather(gradient, back), None, None)
