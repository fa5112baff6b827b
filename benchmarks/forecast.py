"""Forecast against measured peak: `python -m benchmarks.forecast`, or with one JSON object for one training.

Each training runs three optimizer steps in a fresh process; its peak is the kernel's high-water mark, less what the
process held with TensorFlow imported and started.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

MIB = 2**20
TINY = {"vocab_size": 256, "embedding_dim": 64, "num_reasoning_blocks": 3, "num_moe_experts": 4}
TRAININGS: list[dict[str, Any]] = [
    {"model": TINY, "batch_size": 4, "seq_len": 128},
    {"model": TINY | {"block_pattern": "mamba_only"}, "batch_size": 16, "seq_len": 512},
    {"model": TINY | {"block_pattern": "transformer"}, "batch_size": 8, "seq_len": 512},
    {"model": TINY | {"num_reasoning_blocks": 12}, "batch_size": 8, "seq_len": 256},
    {"model": TINY | {"embedding_dim": 256, "num_moe_experts": 8}, "batch_size": 1, "seq_len": 64},
    {"model": TINY | {"embedding_dim": 128, "vocab_size": 32_000}, "batch_size": 4, "seq_len": 256},
    {"model": TINY | {"embedding_dim": 128, "num_reasoning_blocks": 2}, "batch_size": 2, "seq_len": 2048},
    {
        "model": TINY | {"embedding_dim": 512, "num_reasoning_blocks": 6, "vocab_size": 8000},
        "batch_size": 4,
        "seq_len": 128,
    },
]


def measured(training: dict[str, Any]) -> dict[str, int]:
    """`forecast` and `peak` in bytes, from a fresh process. Raises CalledProcessError when it fails."""
    command = [sys.executable, "-m", "benchmarks.forecast", json.dumps(training)]
    root, environ = Path(__file__).parents[1], {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=True)
    figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return figures


def train(training: dict[str, Any]) -> dict[str, int]:
    """Runs in the fresh process of `measured`."""
    import numpy as np
    import tensorflow as tf

    import highnoon as hn
    from highnoon.lm.models.hsmn import HSMN
    from highnoon.lm.training.options import TrainingOptions
    from highnoon.lm.training.train_state import TrainState

    config = hn.ModelConfig(**training["model"])
    shape = (1, training["batch_size"], training["seq_len"])
    tf.constant(1.0) + 1.0  # starts the runtime
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    model = HSMN(config)
    state = TrainState(model, TrainingOptions(jit_compile=False, mixed_precision=False))
    ids = tf.constant(np.random.default_rng(0).integers(0, config.vocab_size, shape), tf.int32)
    for number in range(3):
        state.train(ids, ids, 1e-4, 1.0, number)
        state.sums()
    return {"forecast": hn.estimate_memory(config, *shape[1:]), "peak": _status_bytes("VmHWM") - before}


def _status_bytes(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"the kernel reports no {key}")
    return int(found[1]) * 1024


def main() -> None:
    """One line for each training, or JSON for the one that is given."""
    if len(sys.argv) > 1:
        print(json.dumps(train(json.loads(sys.argv[1]))))
        return
    for training in TRAININGS:
        figures = measured(training)
        line = f"{figures['forecast'] / MIB:7,.0f} MiB forecast, {figures['peak'] / MIB:7,.0f} MiB at the peak"
        print(f"{line}  {figures['forecast'] / figures['peak'] - 1:+4.0%}  {json.dumps(training)}", flush=True)


if __name__ == "__main__":
    main()
