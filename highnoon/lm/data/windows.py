"""Documents as token windows: TextDataset packs them, `epoch_order` orders them, tf.data batches them.

Packing: documents follow one another with a separator between them, so that no window is mostly padding; only the
last one may have any, and its labels are IGNORED there. The order is a pure function of seed, stage and epoch, so that
any step can be found again. TensorFlow is imported when batches are built, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from highnoon.lm.data.sources import read_source
from highnoon.lm.tokenizer import ByteStreamTokenizer, Tokenizer
from highnoon.shared.domain.errors import InvalidInput, Problem

IGNORED = -1
"""The label of a position that no loss looks at."""

Ids = npt.NDArray[np.int32]
Order = npt.NDArray[np.int64]
Packed = npt.NDArray[np.unsignedinteger[Any]]


class TextDataset:
    """`len()` windows; each has inputs `[length]` and the labels `[length]`, which are the next ids.

    Raises InvalidInput for a single text instead of several, and for a length below 1. Documents without any text make
    a dataset of no windows.
    """

    def __init__(self, documents: Iterable[str], tokenizer: Tokenizer | None = None, max_length: int = 2048) -> None:
        _refuse(documents, max_length)
        self.tokenizer = tokenizer or ByteStreamTokenizer()
        self.max_length = max_length
        self._ids = _packed(documents, self.tokenizer)

    @classmethod
    def from_files(
        cls,
        paths: str | Path | Sequence[str | Path],
        tokenizer: Tokenizer | None = None,
        max_length: int = 2048,
    ) -> Self:
        """Text files, JSON lines, folders and glob patterns. Raises UserInputError for what cannot be read."""
        several = [paths] if isinstance(paths, (str, Path)) else paths
        return cls([text for path in several for text in read_source(path)], tokenizer, max_length)

    @property
    def token_count(self) -> int:
        """How many ids there are, separators included."""
        return len(self._ids)

    def __len__(self) -> int:
        return -(-(len(self._ids) - 1) // self.max_length) if len(self._ids) > 1 else 0

    def __getitem__(self, index: int) -> tuple[Ids, Ids]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        inputs, labels = self.windows([index % len(self)])
        return inputs[0], labels[0]

    def windows(self, indexes: Sequence[int] | npt.NDArray[np.int64]) -> tuple[Ids, Ids]:
        """Inputs and labels, both `[len(indexes), length]`; an index of -1 is a window of padding."""
        inputs = np.zeros((len(indexes), self.max_length), np.int32)
        labels = np.full((len(indexes), self.max_length), IGNORED, np.int32)
        for row, index in enumerate(indexes):
            if index >= 0:
                ids = self._ids[index * self.max_length : (index + 1) * self.max_length + 1]
                inputs[row, : len(ids) - 1] = ids[:-1]
                labels[row, : len(ids) - 1] = ids[1:]
        return inputs, labels


def _refuse(documents: object, max_length: object) -> None:
    problems = []
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Iterable):
        message, hint = "must be a list of texts", "To read a path: TextDataset.from_files(...)."
        problems.append(Problem(key="documents", message=message, value=documents, hint=hint))
    if isinstance(max_length, bool) or not isinstance(max_length, Integral) or max_length < 1:
        problems.append(Problem(key="max_length", message="must be an integer of at least 1", value=max_length))
    if problems:
        raise InvalidInput("TextDataset()", problems)


def _packed(documents: Iterable[str], tokenizer: Tokenizer) -> Packed:
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    separator = np.array([tokenizer.separator], dtype)
    parts = [np.zeros(0, dtype)]
    for number, document in enumerate(documents):
        parts += [separator] * (number > 0)
        parts.append(np.array(tokenizer.encode(document, add_special_tokens=False), dtype))
    return np.concatenate(parts)


def epoch_order(counts: Sequence[int], shares: Sequence[float] | None, draws: int, seed: Sequence[int]) -> Order:
    """Pairs of dataset and window as `[draws, 2]`; without shares each dataset is drawn from by its size."""
    random = np.random.default_rng(list(seed))
    portions = np.array(counts if shares is None else shares, float)
    chosen = [
        np.stack([np.full(quota, number), _cycled(count, quota, random)], axis=1)
        for number, (count, quota) in enumerate(zip(counts, _quotas(portions, draws), strict=True))
    ]
    return random.permutation(np.concatenate(chosen))


def _quotas(portions: npt.NDArray[np.float64], total: int) -> list[int]:
    """Whole numbers in these proportions that add up to the total: the largest remainders are rounded up."""
    exact = portions / portions.sum() * total
    quotas = np.floor(exact).astype(int)
    quotas[np.argsort(quotas - exact, kind="stable")[: total - quotas.sum()]] += 1
    return [int(quota) for quota in quotas]


def _cycled(count: int, quota: int, random: np.random.Generator) -> Order:
    rounds = [random.permutation(count) for _ in range(-(-quota // count))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])[:quota].astype(np.int64)


def training_batches(
    datasets: Sequence[TextDataset],
    position: Callable[[], tuple[Order, int]],
    *,
    batch_size: int,
    accumulation: int,
) -> Any:
    """A tf.data.Dataset of inputs and labels, both `[accumulation, batch, length]`.

    Each pass over it is an epoch: `position` gives its order, and the step with which it begins. Windows that do not
    fill a last step are left out.
    """
    drawn = batch_size * accumulation
    length = datasets[0].max_length

    def steps() -> Iterator[tuple[Ids, Ids]]:
        order, first_step = position()
        for step in range(first_step, len(order) // drawn):
            inputs, labels = _gathered(datasets, order[step * drawn : (step + 1) * drawn])
            shape = (accumulation, batch_size, length)
            yield inputs.reshape(shape), labels.reshape(shape)

    return _dataset(steps, (accumulation, batch_size, length))


def validation_batches(dataset: TextDataset, *, batch_size: int, windows: int) -> Any:
    """A tf.data.Dataset of inputs and labels, both `[batch, length]`; the last one is filled up with padding."""

    def batches() -> Iterator[tuple[Ids, Ids]]:
        for start in range(0, windows, batch_size):
            indexes = np.arange(start, start + batch_size)
            yield dataset.windows(np.where(indexes < windows, indexes, -1))

    return _dataset(batches, (batch_size, dataset.max_length))


def prefetched(batches: Any, buffer_size: int | None) -> Any:
    """The same dataset with so many elements ahead, None for as many as TensorFlow chooses."""
    import tensorflow as tf

    return batches.prefetch(tf.data.AUTOTUNE if buffer_size is None else buffer_size)


def _gathered(datasets: Sequence[TextDataset], drawn: Order) -> tuple[Ids, Ids]:
    inputs = np.empty((len(drawn), datasets[0].max_length), np.int32)
    labels = np.empty_like(inputs)
    for number, dataset in enumerate(datasets):
        rows = drawn[:, 0] == number
        if rows.any():
            inputs[rows], labels[rows] = dataset.windows(drawn[rows, 1])
    return inputs, labels


def _dataset(generate: Any, shape: tuple[int, ...]) -> Any:
    import tensorflow as tf

    spec = tf.TensorSpec(shape, tf.int32)
    return tf.data.Dataset.from_generator(generate, output_signature=(spec, spec))
