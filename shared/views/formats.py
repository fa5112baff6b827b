"""How numbers, times and sizes are written for people, in a terminal and on a page; and strict JSON for programs. Pure.

Each function for people takes None for what is not known and writes `unknown` for it: a dash. JSON has no nan and no
infinity, and other languages cannot read them: results become text before (`domain.trial.json_number`), the rest null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from highnoon.shared.domain.trial import ParamValue

NOTHING = "–"

_LIKE_ANOTHER_VALUE = re.compile(
    r"|\s.*|.*\s|[-+]?\d[\d_]*(?:\.\d*)?(?:e[-+]?\d+)?|[-+]?\.\d+|none|null|true|false|[-+]?inf|nan|-|–",
    re.IGNORECASE | re.DOTALL,
)


def number(value: float | None, digits: int = 5, *, unknown: str = NOTHING) -> str:
    """A value: 0.12346, 1.2e-05, diverged for infinity, nan."""
    if value is None:
        return unknown
    if math.isnan(value):
        return "nan"
    if not math.isfinite(value):
        return "diverged" if value > 0 else "-∞"
    return f"{value:.{digits}g}"


def param(value: ParamValue, digits: int = 4) -> str:
    """A parameter's value as a person would write it; text that reads like another value, such as "2", is quoted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if _LIKE_ANOTHER_VALUE.fullmatch(value) else value
    return number(value, digits) if isinstance(value, float) else str(value)


def count(value: int | None) -> str:
    """A whole number with its thousands apart."""
    return NOTHING if value is None else f"{value:,}"


def words(name: str) -> str:
    """An ending, a cause or another key as people write it: timed out."""
    return name.replace("_", " ")


def plural(value: int, noun: str) -> str:
    """1 trial, 3 trials."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def size(value: float | None, *, unknown: str = NOTHING) -> str:
    """Bytes: 312 MB, 3.9 GB."""
    if value is None:
        return unknown
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= 0.9995 * factor:  # else three digits of it would be rounded to 1e+03
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """In a sentence: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for large, small, name, part in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {name} {rest} {part}" if rest else f"{whole // large} {name}"
    return f"{whole} s"


def clock_time(seconds: float | None, *, unknown: str = NOTHING) -> str:
    """In a column: 8.2 s, 3:05, 2:10:00."""
    if seconds is None:
        return unknown
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


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
