"""Text for training: `sources` finds and reads it, `split` holds documents out, `windows` packs and batches it."""

from highnoon.lm.data.sources import known_datasets, register_dataset
from highnoon.lm.data.windows import TextDataset

__all__ = ["TextDataset", "known_datasets", "register_dataset"]
