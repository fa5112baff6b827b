"""Single values as people write them in a search space: a number, a whole number, a choice, a pair of bounds, a step.

Owns what makes each of them acceptable and the sentence for when it is not. Which values a kind of parameter takes
is the business of `space`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from numbers import Integral, Real
from typing import TypeVar

from highnoon.shared.domain.errors import ABSENT
from highnoon.shared.domain.trial import ParamValue

EXACT = 2**53
"""Optuna stores numbers as doubles; whole numbers beyond this are not stored exactly."""

_ZERO = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""A character of JSON that PostgreSQL cannot read; behind another backslash it is plain text."""

Number = TypeVar("Number", int, float)


class Mistake(Exception):
    """What is wrong with one parameter and what would be right; its caller adds the name and makes a Problem."""

    def __init__(self, message: str, hint: str = "", value: object = ABSENT) -> None:
        super().__init__(message)
        self.message, self.hint, self.value = message, hint, value


def number(what: str, value: object) -> float:
    """A finite float from any real number, NumPy's included. Raises Mistake."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise Mistake(f"{what} must be a number, not {_kind_of(value)}", rewritten(value, float))
    try:
        finite = math.isfinite(float(value))
    except OverflowError:  # an int beyond every float
        finite = False
    if not finite:
        raise Mistake(f"{what} must be a finite number")
    return float(value)


def whole(what: str, value: object) -> int:
    """An int that a double holds exactly. Raises Mistake, also for 12.0."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise Mistake(f"{what} must be a whole number, not {_kind_of(value)}", rewritten(value, int))
    if abs(int(value)) > EXACT:
        raise Mistake(f"{what} must be within ±{EXACT}, beyond which numbers are not stored exactly")
    return int(value)


def plain(value: object) -> object:
    """NumPy's scalars as Python's; everything else as it is."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def listed(value: object) -> object:
    """Arrays and sets as lists, a set in an order that is the same in every process; everything else as it is."""
    if isinstance(value, set | frozenset):
        try:
            return sorted(value)
        except TypeError:  # values of several types
            return sorted(value, key=repr)
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        return value.tolist()
    return value


def choice(value: object) -> ParamValue:
    """A plain value that JSON and PostgreSQL can hold. Raises Mistake."""
    value = plain(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and is_storable(value):
        return str(value)
    raise Mistake(
        f"the choice {value!r} is not text, a finite number, true, false or null",
        "Give it a name and let the objective look that up.",
    )


def ordered(low: Number, high: Number) -> tuple[Number, Number]:
    """Both as they are. Raises Mistake when they are the wrong way round."""
    if low > high:
        raise Mistake(f"low {low!r} is above high {high!r}", "Swap the two.")
    return low, high


def above_zero(low: Number, instead: str) -> Number:
    """The low end of a logarithmic scale. Raises Mistake, with `instead` as what to write on a linear one."""
    if low <= 0:
        raise Mistake(f"a log scale starts above 0, not at {low!r}", f"Raise low, or write {instead}.")
    return low


def positive_step(step: Number) -> Number:
    """The step as it is. Raises Mistake when it leads nowhere or backwards."""
    if step <= 0:
        raise Mistake(f"step must be above 0, not {step!r}", "Leave it out to draw from the whole range.")
    return step


def is_storable(text: str) -> bool:
    """False for what UTF-8 or PostgreSQL refuse: lone surrogates and NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def is_json(value: object) -> bool:
    """Whether PostgreSQL can hold it as JSON and read it: a value that it cannot read fails queries of all studies."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return is_storable(text) and _ZERO.search(text) is None


def rewritten(value: object, convert: Callable[[str], int | float]) -> str:
    """The hint for a number that was written in quotes or, where a whole one is wanted, as 12.0; else nothing."""
    try:
        if isinstance(value, str):
            convert(value)
            return f"Write {value.strip()} without quotes."
        return f"Write {int(value)}." if isinstance(value, float) and value.is_integer() else ""
    except ValueError:
        return ""


def exact(value: float) -> Decimal:
    """The number as it is written: 0.1 is a tenth here, so that steps do not drift."""
    return Decimal(repr(value))


def _kind_of(value: object) -> str:
    named = {str: "text", bool: "true or false", type(None): "null", float: "a fraction"}
    return named.get(type(value), f"a {type(value).__name__}")
