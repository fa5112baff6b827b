"""The trial of the comparison, for HighNoon."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from record import train as trained

import highnoon as hn


def train(params: dict[str, Any]) -> float:
    """A second and a half, five reports."""
    return float(trained(float(params["x"]), hn.report))
