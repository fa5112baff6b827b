"""Windows as tf.data batches of one shape, prefetched while the device works.

Owns shapes and prefetching. What comes when was decided by `order`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from highnoon.lm.data.dataset import Ids, TextDataset
from highnoon.lm.data.order import Order


def training_batches(
    datasets: Sequence[TextDataset],
    order: Order,
    *,
    batch_size: int,
    accumulation: int,
    first_step: int = 0,
    prefetch_buffer_size: int | None = None,
) -> Any:
    """A tf.data.Dataset of inputs and labels, both `[accumulation, batch, length]`, from `first_step` on.

    Windows that do not fill a last step are left out; the next epoch's order is another one.
    """
    drawn = batch_size * accumulation
    length = datasets[0].max_length

    def steps() -> Iterator[tuple[Ids, Ids]]:
        for step in range(first_step, len(order) // drawn):
            inputs, labels = _gathered(datasets, order[step * drawn : (step + 1) * drawn])
            shape = (accumulation, batch_size, length)
            yield inputs.reshape(shape), labels.reshape(shape)

    return _dataset(steps, (accumulation, batch_size, length), prefetch_buffer_size)


def validation_batches(
    dataset: TextDataset, *, batch_size: int, windows: int, prefetch_buffer_size: int | None = None
) -> Any:
    """A tf.data.Dataset of inputs and labels, both `[batch, length]`; the last one is filled up with padding."""

    def batches() -> Iterator[tuple[Ids, Ids]]:
        for start in range(0, windows, batch_size):
            indexes = np.arange(start, start + batch_size)
            yield dataset.windows(np.where(indexes < windows, indexes, -1))

    return _dataset(batches, (batch_size, dataset.max_length), prefetch_buffer_size)


def _gathered(datasets: Sequence[TextDataset], drawn: Order) -> tuple[Ids, Ids]:
    inputs = np.empty((len(drawn), datasets[0].max_length), np.int32)
    labels = np.empty_like(inputs)
    for number, dataset in enumerate(datasets):
        rows = drawn[:, 0] == number
        if rows.any():
            inputs[rows], labels[rows] = dataset.windows(drawn[rows, 1])
    return inputs, labels


def _dataset(generate: Any, shape: tuple[int, ...], prefetch_buffer_size: int | None) -> Any:
    import tensorflow as tf

    spec = tf.TensorSpec(shape, tf.int32)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=(spec, spec))
    return dataset.prefetch(tf.data.AUTOTUNE if prefetch_buffer_size is None else prefetch_buffer_size)
