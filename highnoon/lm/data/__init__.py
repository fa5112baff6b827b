"""Text by name: sources, the registry of names, the split by document, and token windows in batches.

`sources` reads, `registry` finds, `split` holds documents out, `windows` packs and batches. Nothing here imports
TensorFlow, except the pipeline at the moment it is built.
"""

from highnoon.lm.data.dataset import TextDataset
from highnoon.lm.data.registry import known_datasets, register_dataset

__all__ = ["TextDataset", "known_datasets", "register_dataset"]
