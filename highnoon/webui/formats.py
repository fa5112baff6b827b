"""How pages spell numbers, times and sizes: short for reading, exact on hover."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from urllib.parse import quote

from markupsafe import Markup

from highnoon.shared.domain.trial import ParamValue

NOTHING = "–"


def number(value: float | None, digits: int = 5) -> str:
    """A value: 0.12346, 1.2e-05, diverged for infinity."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "diverged" if value > 0 else "-∞"
    return f"{value:.{digits}g}"


def param(value: ParamValue) -> str:
    """A parameter's value as a person would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    return number(value, 4) if isinstance(value, float) else str(value)


def count(value: int | None) -> str:
    """A whole number with its thousands apart."""
    return NOTHING if value is None else f"{value:,}"


def size(value: float | None) -> str:
    """Bytes: 312 MB, 3.9 GB."""
    if value is None:
        return NOTHING
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
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


def moment(when: datetime | float | None) -> Markup:
    """A time element: how long ago, which the page keeps up to date, and the exact moment on hover."""
    if when is None:
        return Markup(NOTHING)
    at = when if isinstance(when, datetime) else datetime.fromtimestamp(when, timezone.utc)
    exact = at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    passed = (datetime.now(timezone.utc) - at).total_seconds()
    shown = "just now" if passed < 5 else f"{_coarse(passed)} ago"
    return Markup('<time datetime="{}" title="{}" data-ago>{}</time>').format(at.isoformat(), exact, shown)


def segment(name: str) -> str:
    """A name as one part of an address."""
    return quote(name, safe="")


def _coarse(seconds: float) -> str:
    for size_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_s:
            return f"{int(seconds // size_s)} {unit}"
    return f"{int(seconds)} s"


FILTERS: Mapping[str, Callable[..., str]] = {
    "number": number,
    "param": param,
    "count": count,
    "size": size,
    "duration": duration,
    "moment": moment,
    "segment": segment,
}
"""What templates call them."""
