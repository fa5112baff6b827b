"""Strict JSON, without nan and infinity, which other languages cannot read: they become null."""

from __future__ import annotations

import json
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


def dumps(value: object, *, indent: int | None = None) -> str:
    """Strict JSON: compact, or indented for people. Values that JSON does not know are written as text."""
    separators = (",", ":") if indent is None else None
    return json.dumps(finite(value), allow_nan=False, indent=indent, separators=separators, default=str)
