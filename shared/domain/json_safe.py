"""Plain values for strict JSON, which has no nan and no infinity: other languages cannot read them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def finite(value: object) -> object:
    """The same value with null in the place of what is not a number that JSON has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
