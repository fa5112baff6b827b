"""The seeds of a trial: the same for every attempt at it, so that a retry repeats its randomness."""

from __future__ import annotations

import hashlib
import random
import sys


def trial_seed(study_seed: int, ordinal: int) -> int:
    """The 32-bit seed of a ticket."""
    digest = hashlib.blake2b(f"{study_seed}:{ordinal}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def seed_python(seed: int) -> None:
    """Python's own generator, and NumPy's where it is imported."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)


def seed_libraries(seed: int) -> None:
    """After the objective's imports, for the libraries that it brought. By name: workers never import TensorFlow."""
    seed_python(seed)
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.utils.set_random_seed(seed)
