"""The training of `benchmarks.peers.reliability` as an objective of HighNoon."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from training_record import train as trained

import highnoon as hn


def train(params: dict[str, Any]) -> float:
    """As `training_record.train` describes it."""
    return float(trained(float(params["x"]), hn.report))
