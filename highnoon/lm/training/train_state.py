"""A model while it is trained: its optimizer, its precision, and one compiled step for each shape of batch.

Owns the loss: mean cross-entropy of the next id over all labels that count. What a model adds in `model.losses`
changes the training and appears in no number that is reported.

Keras' own facilities are used where they give the same numbers. Its gradient accumulation does not: it weighs
micro-batches equally, whatever their padding, and keeps one more copy of all weights. Clipping stays here because the
norm is needed anyway, to find the first step that was not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from highnoon.lm.data.windows import IGNORED
from highnoon.lm.training.options import TrainingOptions

_WITHOUT_DECAY = ("bias", "gamma", "beta", "scale", "gain", "embeddings", "a_log", "skip", "norm")
_FIRST_WITH_BFLOAT16 = (8, 0)
"""The compute capability of the first NVIDIA devices that multiply bfloat16 in hardware."""


class TrainState:
    """Created once for a model; all stages share its compiled steps. Builds the model when that was not done yet."""

    def __init__(self, model: Any, options: TrainingOptions) -> None:
        apply_precision(model, options.mixed_precision)
        if not model.built:
            model(tf.zeros((1, 1), tf.int32))
        self.model = model
        self.optimizer = make_optimizer(model, options)
        self._weights = model.trainable_variables
        self._clip = options.gradient_clip
        self._loss_sum = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._label_count = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._diverged_at = tf.Variable(-1, dtype=tf.int64, trainable=False)
        jit_compile = jit_pays(model) if options.jit_compile is None else options.jit_compile
        self.train_step = CompiledPerShape(self._train_step, jit_compile)
        self.validation_step = CompiledPerShape(self._validation_step, jit_compile)

    def train(self, inputs: tf.Tensor, labels: tf.Tensor, learning_rate: float, weight: float, step: int) -> None:
        """One optimizer step on `[accumulation, batch, length]`; the micro-batches count by their labels."""
        self.train_step(
            inputs,
            labels,
            tf.constant(learning_rate, tf.float32),
            tf.constant(weight, tf.float32),
            tf.constant(step, tf.int64),
        )

    def validate(self, inputs: tf.Tensor, labels: tf.Tensor) -> tuple[float, float]:
        """The sum of a batch's losses and its number of labels; both inputs are `[batch, length]`."""
        loss, count = self.validation_step(inputs, labels)
        return float(loss), float(count)

    @property
    def diverged_at(self) -> int | None:
        """The first step whose loss or gradient was not finite. Waits for the device."""
        step = int(self._diverged_at.numpy())
        return None if step < 0 else step

    def sums(self) -> tuple[float, float]:
        """The sum of all losses of the current epoch, and its number of labels. Waits for the device."""
        return float(self._loss_sum.numpy()), float(self._label_count.numpy())

    def mean_loss(self) -> float:
        """The mean loss of the current epoch so far. Waits for the device."""
        loss_sum, label_count = self.sums()
        return loss_sum / max(label_count, 1.0)

    def set_sums(self, loss_sum: float, label_count: float) -> None:
        """Continues an epoch, or begins one with zeros."""
        self._loss_sum.assign(loss_sum)
        self._label_count.assign(label_count)

    def begin(self, loss_sum: float = 0.0, label_count: float = 0.0) -> None:
        """Starts a training, or continues one with the sums of its current epoch; clears an earlier divergence."""
        self.set_sums(loss_sum, label_count)
        self._diverged_at.assign(-1)

    def _train_step(
        self, inputs: tf.Tensor, labels: tf.Tensor, learning_rate: tf.Tensor, weight: tf.Tensor, step: tf.Tensor
    ) -> None:
        count = tf.maximum(tf.reduce_sum(tf.cast(labels != IGNORED, tf.float32)), 1.0)
        loss, gradients = self._accumulated(inputs, labels, weight, count)
        norm = tf.linalg.global_norm(gradients)
        if self._clip is not None:
            shrink = self._clip / tf.maximum(norm, self._clip)
            gradients = [gradient * shrink for gradient in gradients]
        self.optimizer.learning_rate.assign(learning_rate)
        apply_adamw(self.optimizer, gradients, self._weights)
        self._loss_sum.assign_add(tf.cast(loss, tf.float64))
        self._label_count.assign_add(tf.cast(count, tf.float64))
        is_finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        is_first = ~is_finite & (self._diverged_at < 0)
        self._diverged_at.assign(tf.where(is_first, step, self._diverged_at))

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
            loss = tf.reduce_sum(token_losses(self.model(inputs, training=True), labels))
            added = tf.add_n([tf.cast(extra, tf.float32) for extra in self.model.losses] or [tf.constant(0.0)])
            objective = weight * (loss / count + added * share)
        weights = [variable.value for variable in self._weights]
        gradients = tape.gradient(objective, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in gradients]

    def _validation_step(self, inputs: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses = token_losses(self.model(inputs, training=False), labels)
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(labels != IGNORED, tf.float32))


class CompiledPerShape:
    """A function of tensors, traced once for each shape of the first. TensorFlow would warn of every further trace."""

    def __init__(self, function: Callable[..., Any], jit_compile: bool) -> None:
        self._function = tf.function(function, jit_compile=jit_compile, autograph=False)
        self.traced: dict[tuple[int, ...], Any] = {}

    def __call__(self, *tensors: tf.Tensor) -> Any:
        shape = tuple(tensors[0].shape)
        if shape not in self.traced:
            self.traced[shape] = self._function.get_concrete_function(*tensors)
        return self.traced[shape](*tensors)


def token_losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Cross-entropy in nats of each position, `[batch, length]`; 0 where the label is IGNORED."""
    counts = labels != IGNORED
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.where(counts, labels, 0), logits=tf.cast(logits, tf.float32)
    )
    return tf.where(counts, losses, 0.0)


def make_optimizer(model: Any, options: TrainingOptions) -> Any:
    """A Keras AdamW, built for the model's trainable variables. Each step assigns its learning rate.

    Weight decay excludes what it only harms: norms, biases, embeddings, the decay rates and skips of a scan.
    """
    optimizer = keras.optimizers.AdamW(
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        beta_1=options.adam_beta1,
        beta_2=options.adam_beta2,
        epsilon=options.adam_epsilon,
    )
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if not decays(v)])
    optimizer.build(model.trainable_variables)
    return optimizer


def apply_adamw(optimizer: Any, gradients: Sequence[tf.Tensor], variables: Sequence[Any]) -> None:
    """What `optimizer.apply` computes, with TensorFlow's fused operation for each variable.

    Tracing Keras' own, of many operations for each, is a third of tracing a training step. It stays for layers with a
    type of their own, and for constraints.
    """
    if any(variable.dtype != "float32" or variable.constraint is not None for variable in variables):
        optimizer.apply(gradients, variables)
        return
    rate = tf.convert_to_tensor(optimizer.learning_rate)
    step = tf.cast(optimizer.iterations + 1, tf.float32)
    constants = {
        "beta1_power": tf.pow(optimizer.beta_1, step),
        "beta2_power": tf.pow(optimizer.beta_2, step),
        "lr": rate,
        "beta1": optimizer.beta_1,
        "beta2": optimizer.beta_2,
        "epsilon": optimizer.epsilon,
    }
    moments = zip(optimizer._momentums, optimizer._velocities, strict=True)
    for gradient, variable, (mean, square) in zip(gradients, variables, moments, strict=True):
        if decays(variable):
            variable.value.assign_sub(variable.value * optimizer.weight_decay * rate)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.value.handle, m=mean.value.handle, v=square.value.handle, grad=gradient, **constants
        )
    optimizer.iterations.assign_add(1)


def decays(variable: Any) -> bool:
    """True for matrices that are not embeddings; decided by shape and by the variable's own name."""
    name = str(variable.name).lower()
    return len(variable.shape) > 1 and not any(part in name for part in _WITHOUT_DECAY)


def apply_precision(model: Any, wanted: bool | None) -> None:
    """Switches the model's layers to mixed bfloat16 when wanted; None: when the device gains from it.

    Weights, losses and the optimizer stay float32; bfloat16 has its range, so that no loss needs scaling. A layer that
    was given its own policy, other than plain float32, keeps it.
    """
    if not (device_has_bfloat16() if wanted is None else wanted):
        return
    policy = keras.DTypePolicy("mixed_bfloat16")
    for layer in model._flatten_layers():
        if layer.dtype_policy.name == "float32":
            layer.dtype_policy = policy


def device_has_bfloat16() -> bool:
    """True when every GPU multiplies bfloat16 in hardware; False without one."""
    devices = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return bool(devices) and all(
        (details.get("compute_capability") or (0, 0)) >= _FIRST_WITH_BFLOAT16 for details in devices
    )


def jit_pays(model: Any) -> bool:
    """True on a GPU for a model whose layers all support XLA; on a CPU compiling costs more than it saves."""
    able = all(getattr(layer, "supports_jit", True) for layer in model._flatten_layers())
    return able and bool(tf.config.list_physical_devices("GPU"))
