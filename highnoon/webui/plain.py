"""Strict JSON: no nan and no infinity, which other languages cannot read. They become null."""

from __future__ import annotations

import json

from highnoon.shared.domain.json_safe import finite


def dumps(value: object) -> str:
    """Compact JSON of plain values; what JSON does not know is spelled as text."""
    return json.dumps(finite(value), allow_nan=False, separators=(",", ":"), default=str)
