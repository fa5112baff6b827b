"""Text for training: `sources` finds it, reads it and holds documents out, `windows` packs and batches it."""

from highnoon.lm.data.sources import known_datasets, register_dataset
from highnoon.lm.data.windows import TextDataset

__all__ = ["TextDataset", "known_datasets", "register_dataset"]
