"""Starts `benchmarks.peers.samplers` in a library's own environment, and talks to its sampler."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import python_of
from highnoon.shared.domain.trial import Params

PEERS = ("hyperopt", "smac", "syne")
"""By the name of the environment."""


class SamplerProcess:
    """The sampler of one library, for one study after the other."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            [python_of(name), str(Path(__file__).with_name("samplers.py")), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # One core, as the other entries have, and no PYTHONPATH: the other environment has its own packages.
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def open(self, space: Mapping[str, Any], seed: int) -> None:
        """Starts another study."""
        self._exchange({"do": "open", "space": dict(space), "seed": seed})

    def ask(self, ordinal: int) -> tuple[int, Params]:
        """The next point."""
        params: Params = self._exchange({"do": "ask", "trial": ordinal})["params"]
        return ordinal, params

    def tell(self, trial: int, loss: float) -> None:
        """Reports the loss of a trial."""
        self._exchange({"do": "tell", "trial": trial, "loss": loss})

    def _exchange(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process has ended: {self._process.args!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer
