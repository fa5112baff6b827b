"""What the benchmarks of overhead and leaks run: nothing at all, a small Keras model, and 50 MB that nobody frees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def noop(params: dict[str, Any]) -> float:
    """Pure overhead."""
    return float(params["x0"])


def small_keras(params: dict[str, Any]) -> float:
    """Two epochs of a small dense network on 512 random rows; prints what only this process holds in memory."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(512, 16)).astype("float32"), rng.integers(0, 2, 512)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)])
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    history = model.fit(rows, labels, batch_size=64, epochs=2, verbose=0)
    print(f"private_bytes={private_bytes()}")
    return float(history.history["loss"][-1])


never_freed: list[bytes] = []


def leaks_50_mb(params: dict[str, Any]) -> float:
    """Prints what the benchmark's whole tree of processes holds before it takes its part."""
    from shared.vitals import ProcessGroup

    node = ProcessGroup(int(os.environ["LEAK_BENCHMARK_PID"]))
    node.find()
    held = node.exact()
    assert held is not None, "this kernel does not tell what processes hold"
    print(f"used_bytes={held.private_bytes + held.shared_bytes + held.swap_bytes}")
    never_freed.append(b"x" * 50_000_000)
    return float(len(never_freed))


def private_bytes() -> int:
    """Memory that ends with this process: pages that it shares with nobody."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) * 1024
