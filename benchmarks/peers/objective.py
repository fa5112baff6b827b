"""The trial of the comparison, for HighNoon."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from record import train as trained

import highnoon as hn


def train(params: hn.Params) -> float:
    """A second and a half, five reports."""
    return trained(float(params["x"]), hn.report)
