"""A Keras classifier of handwritten digits, small enough that a trial takes about a second on one CPU core.

The data are scikit-learn's bundled digits: 1,797 real images of 8 x 8 grey pixels. `train` is the objective:
it returns the best validation loss, reports every epoch, and stops when the study's pruner decides so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import highnoon as hn

tf.get_logger().setLevel("ERROR")  # every trial compiles a graph of its own, and in process TensorFlow would warn of it

EPOCHS = 20
VALIDATION_IMAGES = 360
SPLIT_SEED = 20

Split = tuple[np.ndarray, np.ndarray]
"""Images as [count, 8, 8, 1] and their labels as [count]."""


def train(params: dict[str, Any]) -> float:
    """Trains one model with `params`; returns its lowest validation loss. Raises TrialPruned when it is pruned."""
    stay_on_one_core()
    training, validation = load_split()
    model = build_model(params)
    train_epoch = compiled_epoch(model, make_optimizer(params), training, params["batch_size"])

    best_loss, best_accuracy = float("inf"), 0.0
    for epoch in range(EPOCHS):
        loss = float(train_epoch())
        val_loss, val_accuracy = evaluate(model, validation)
        print(f"epoch={epoch} loss={loss:.4f} val_loss={val_loss:.4f} val_accuracy={val_accuracy:.4f}", flush=True)
        if val_loss < best_loss:
            best_loss, best_accuracy = val_loss, val_accuracy

        hn.report(val_loss, epoch)
        if hn.should_prune():
            raise hn.TrialPruned(f"not promising at epoch {epoch}")

    print(f"best val_loss={best_loss:.4f} val_accuracy={best_accuracy:.4f}", flush=True)
    return best_loss


def stay_on_one_core() -> None:
    """One thread for TensorFlow: several trials share this machine, and an 8 x 8 image keeps no second core busy."""
    with contextlib.suppress(RuntimeError):  # in process, the second trial finds the runtime already initialised
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def load_split() -> tuple[Split, Split]:
    """What to train on and what to validate on; the same for every trial, so that losses compare."""
    digits = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.target))
    images = (digits.images[order, :, :, None] / 16.0).astype("float32")
    labels = digits.target[order].astype("int32")
    held_out = VALIDATION_IMAGES
    return (images[held_out:], labels[held_out:]), (images[:held_out], labels[:held_out])


def build_model(params: dict[str, Any]) -> keras.Model:
    """One convolution and one hidden layer; the output is a logit for each digit."""
    penalty = keras.regularizers.L2(params["l2"])
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(params["filters"], 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(params["dropout"]),
            keras.layers.Dense(params["units"], activation="relu", kernel_regularizer=penalty),
            keras.layers.Dense(10),
        ]
    )


def make_optimizer(params: dict[str, Any]) -> keras.optimizers.Optimizer:
    """The optimizer by its name in the search space."""
    kinds = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}
    return kinds[params["optimizer"]](learning_rate=params["learning_rate"])


def compiled_epoch(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, training: Split, batch_size: int
) -> Callable[[], tf.Tensor]:
    """A whole epoch as one TensorFlow graph: at this size `fit` spends nine tenths of its time outside the model."""
    images, labels = (tf.constant(array) for array in training)
    count = len(training[1]) // batch_size
    weights = model.trainable_variables
    optimizer.build(weights)

    def add_step(total: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = cross_entropy(tf.gather(labels, batch), model(tf.gather(images, batch), training=True))
            penalised = loss + tf.add_n(model.losses)
        optimizer.apply(tape.gradient(penalised, weights), weights)
        return total + loss

    @tf.function(autograph=False)  # autograph would convert the code again in each trial
    def epoch() -> tf.Tensor:
        order = tf.random.shuffle(tf.range(len(training[1])))
        batches = tf.reshape(order[: count * batch_size], (count, batch_size))
        return tf.foldl(add_step, batches, 0.0) / count

    return epoch


def evaluate(model: keras.Model, validation: Split) -> tuple[float, float]:
    """Validation loss, without the penalty that only steers the training, and accuracy."""
    images, labels = validation
    logits = model(images, training=False)
    accuracy = np.mean(np.argmax(logits, axis=1) == labels)
    return float(cross_entropy(labels, logits)), float(accuracy)


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean over the batch, from logits."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
