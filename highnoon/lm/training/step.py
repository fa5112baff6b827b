"""One optimizer step and one validation batch, each compiled once for each shape.

Owns the loss: mean cross-entropy of the next id over all labels that count. What a model adds in `model.losses`
steers the training and appears in no number that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from highnoon.lm.data.dataset import IGNORED


class TrainStep:
    """Applies a step when called, and remembers the epoch's loss and the first step at which it was no number."""

    def __init__(self, model: Any, optimizer: Any, gradient_clip: float | None, jit_compile: bool) -> None:
        self._model = model
        self._optimizer = optimizer
        self._weights = model.trainable_variables
        self._clip = gradient_clip
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.label_count = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._diverged_at = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._compiled = Compiled(self._step, jit_compile)

    def __call__(self, inputs: tf.Tensor, labels: tf.Tensor, learning_rate: float, weight: float, step: int) -> None:
        """`inputs` and `labels` are `[accumulation, batch, length]`; the micro-batches count by their labels."""
        self._compiled(
            inputs,
            labels,
            tf.constant(learning_rate, tf.float32),
            tf.constant(weight, tf.float32),
            tf.constant(step, tf.int64),
        )

    @property
    def diverged_at(self) -> int | None:
        """The first step whose loss or gradient was not finite. Waits for the device."""
        step = int(self._diverged_at.numpy())
        return None if step < 0 else step

    def sums(self) -> tuple[float, float]:
        """The sum of all losses of the epoch under way, and of how many labels. Waits for the device."""
        return float(self.loss_sum.numpy()), float(self.label_count.numpy())

    def set_sums(self, loss_sum: float, label_count: float) -> None:
        """Continues an epoch, or begins one with zeros."""
        self.loss_sum.assign(loss_sum)
        self.label_count.assign(label_count)

    def begin(self) -> None:
        """A new training: no sums, no memory of a loss that was no number."""
        self.set_sums(0.0, 0.0)
        self._diverged_at.assign(-1)

    def _step(
        self, inputs: tf.Tensor, labels: tf.Tensor, learning_rate: tf.Tensor, weight: tf.Tensor, step: tf.Tensor
    ) -> None:
        count = tf.maximum(tf.reduce_sum(tf.cast(labels != IGNORED, tf.float32)), 1.0)
        loss, gradients = self._accumulated(inputs, labels, weight, count)
        norm = tf.linalg.global_norm(gradients)
        if self._clip is not None:
            shrink = self._clip / tf.maximum(norm, self._clip)
            gradients = [gradient * shrink for gradient in gradients]
        self._optimizer.learning_rate.assign(learning_rate)
        self._optimizer.apply(gradients, self._weights)
        self.loss_sum.assign_add(tf.cast(loss, tf.float64))
        self.label_count.assign_add(tf.cast(count, tf.float64))
        fine = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        first = ~fine & (self._diverged_at < 0)
        self._diverged_at.assign(tf.where(first, step, self._diverged_at))

    def _accumulated(
        self, inputs: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        batches = inputs.shape[0]
        if batches == 1:
            return self._gradients(inputs[0], labels[0], weight, count, share=1.0)

        def add(number: tf.Tensor, loss: tf.Tensor, gradients: list[tf.Tensor]) -> Any:
            more_loss, more = self._gradients(inputs[number], labels[number], weight, count, share=1.0 / batches)
            return number + 1, loss + more_loss, [a + b for a, b in zip(gradients, more, strict=True)]

        zeros = [tf.zeros(variable.shape, tf.float32) for variable in self._weights]
        start = (tf.constant(0), tf.constant(0.0), zeros)
        _, loss, gradients = tf.while_loop(lambda number, *_: number < batches, add, start, maximum_iterations=batches)
        return loss, gradients

    def _gradients(
        self, inputs: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor, count: tf.Tensor, share: float
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(token_losses(self._model(inputs, training=True), labels))
            steering = tf.add_n([tf.cast(extra, tf.float32) for extra in self._model.losses] or [tf.constant(0.0)])
            objective = weight * (loss / count + steering * share)
        weights = [variable.value for variable in self._weights]
        gradients = tape.gradient(objective, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in gradients]


class ValidationStep:
    """Sums the losses of a batch when called."""

    def __init__(self, model: Any, jit_compile: bool) -> None:
        self._model = model
        self._compiled = Compiled(self._sums, jit_compile)

    def __call__(self, inputs: tf.Tensor, labels: tf.Tensor) -> tuple[float, float]:
        """The sum of the losses, and of how many labels; both inputs are `[batch, length]`."""
        loss, count = self._compiled(inputs, labels)
        return float(loss), float(count)

    def _sums(self, inputs: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses = token_losses(self._model(inputs, training=False), labels)
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(labels != IGNORED, tf.float32))


class Compiled:
    """A function of tensors, traced once for each shape of the first; TensorFlow would warn of every further one."""

    def __init__(self, function: Callable[..., Any], jit_compile: bool) -> None:
        self._function = tf.function(function, jit_compile=jit_compile, autograph=False)
        self._traced: dict[tuple[int, ...], Any] = {}

    def __call__(self, *tensors: tf.Tensor) -> Any:
        shape = tuple(tensors[0].shape)
        if shape not in self._traced:
            self._traced[shape] = self._function.get_concrete_function(*tensors)
        return self._traced[shape](*tensors)

    @property
    def traced_count(self) -> int:
        """How many shapes there have been."""
        return len(self._traced)


def token_losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Cross-entropy in nats of each position, `[batch, length]`; 0 where the label is IGNORED."""
    counts = labels != IGNORED
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.where(counts, labels, 0), logits=tf.cast(logits, tf.float32)
    )
    return tf.where(counts, losses, 0.0)
