"""What the benchmarks run: nothing, reports, a small Keras model, memory never freed, memory that does not fit."""

from __future__ import annotations

import math
import os
import statistics
import time
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


def reports(params: dict[str, Any]) -> float:
    """One second of 100 steps, with a report and a question in each; prints what these took, unless it is pruned."""
    import highnoon as hn

    began, reported, asked = time.perf_counter(), [], []
    for step in range(100):
        first = time.perf_counter()
        hn.report(float(params["x0"]) + 1 / (step + 1), step)
        second = time.perf_counter()
        must_end = hn.should_prune()
        third = time.perf_counter()
        if must_end:
            raise hn.TrialPruned
        reported.append(second - first)
        asked.append(third - second)
        time.sleep(max(0.0, began + (step + 1) / 100 - third))
    for name, values in {"report_us": reported, "should_prune_us": asked}.items():
        print(f"{name}={1e6 * statistics.median(values):.0f}")
    print(f"reporting_permille={1000 * (sum(reported) + sum(asked)):.0f}")
    return float(params["x0"])


never_freed: list[bytes] = []


def leaks_50_mb(params: dict[str, Any]) -> float:
    """Prints what the benchmark's whole tree of processes holds before it takes its part."""
    from highnoon.shared.memory.process_memory import ProcessTree

    node = ProcessTree(int(os.environ["LEAK_BENCHMARK_PID"]))
    node.find()
    held = node.exact()
    assert held is not None, "this kernel does not report what processes hold"
    print(f"used_bytes={held.bytes + held.swap_bytes}")
    never_freed.append(b"x" * 50_000_000)
    return float(len(never_freed))


def private_bytes() -> int:
    """Memory that ends with this process: its private pages."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) * 1024


def needed_bytes(params: dict[str, Any]) -> int:
    """0.2 to 6 GB, by three sizes that multiply."""
    share = params["width"] * params["layers"] * params["batch_size"] / (512 * 12 * 32)
    return int((0.2 + 5.8 * share) * 1e9)


def indifferent_to_size(params: dict[str, Any]) -> float:
    """Takes its memory, piece by piece as a training does; the loss depends on the learning rate alone."""
    held = [b"x" * (16 << 20) for _ in range(needed_bytes(params) >> 24)]
    time.sleep(0.1)
    return (math.log10(params["learning_rate"]) + 3) ** 2 + 0 * len(held)


def lured_by_size(params: dict[str, Any]) -> float:
    """As `indifferent_to_size`, and larger is always better."""
    return 0.3 * indifferent_to_size(params) + 1e5 / math.sqrt(needed_bytes(params))
