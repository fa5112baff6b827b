"""TextDataset: documents as one stream of ids, seen through windows of a fixed length.

Owns packing and padding. Documents follow one another with a separator between them, so that no window is mostly
padding; only the last one may have any, and its labels are IGNORED there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from highnoon.lm.data.sources import read_source
from highnoon.lm.tokenizer import ByteStreamTokenizer, Tokenizer

IGNORED = -1
"""The label of a position that no loss looks at."""

Ids = npt.NDArray[np.int32]
Packed = npt.NDArray[np.unsignedinteger[Any]]


class TextDataset:
    """`len()` windows; each has inputs `[length]` and the labels `[length]`, which are the next ids.

    Raises ValueError for a length below 1. Documents without any text make a dataset of no windows.
    """

    def __init__(self, documents: Iterable[str], tokenizer: Tokenizer | None = None, max_length: int = 2048) -> None:
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {max_length}")
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


def _packed(documents: Iterable[str], tokenizer: Tokenizer) -> Packed:
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    separator = np.array([tokenizer.separator], dtype)
    parts = [np.zeros(0, dtype)]
    for number, document in enumerate(documents):
        parts += [separator] * (number > 0)
        parts.append(np.array(tokenizer.encode(document, add_special_tokens=False), dtype))
    return np.concatenate(parts)
