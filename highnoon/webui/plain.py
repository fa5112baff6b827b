"""Strict JSON: no nan and no infinity, which other languages cannot read. They become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


def dumps(value: object) -> str:
    """Compact JSON of plain values; what JSON does not know is spelled as text."""
    return json.dumps(finite(value), allow_nan=False, separators=(",", ":"), default=str)


def finite(value: object) -> object:
    """The same value with null in the place of what is not a number that JSON has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
