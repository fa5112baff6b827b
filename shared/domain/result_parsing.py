"""What an objective hands over, read into plain values: a report, a count of parameters, a result.

Owns which objects pass for a number (Python's, NumPy's, TensorFlow's) and the words for those that do not. Needs no
study: `score` decides what a value is worth.
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable
from typing import SupportsFloat, SupportsIndex, TypeVar

from highnoon.shared.domain.errors import InvalidInput, InvalidObjectiveResult, Problem, nearest
from highnoon.shared.domain.trial import ParamCount, Report

T = TypeVar("T")

RESULT_KEYS = ("loss", "params", "active_params")
MOST_PARAMS = 2**63 - 1
LARGEST_STEP = 2**31 - 1
"""Optuna's column holds no larger one."""

_shown = reprlib.Repr()
_shown.maxother = _shown.maxstring = 80


def result(returned: object) -> tuple[float, ParamCount | None]:
    """The loss that an objective owes, and the count if it gave one. Raises InvalidObjectiveResult with what it was."""
    if not isinstance(returned, dict):
        return _loss(returned, ""), None
    unknown = [key for key in returned if key not in RESULT_KEYS]
    if unknown or "loss" not in returned:
        raise InvalidObjectiveResult(_wrong_keys(returned, unknown))
    loss = _loss(returned["loss"], " as loss")
    total, active = returned.get("params"), returned.get("active_params")
    if total is None and active is None:
        return loss, None
    try:
        return loss, param_count(total, active)
    except InvalidInput as invalid:
        problems = " ".join(map(str, invalid.problems))
        raise InvalidObjectiveResult(f"the objective returned a count that is none: {problems}") from None


def report(value: object, step: object) -> Report:
    """One intermediate value. Raises InvalidInput for a value that is no number, or a step that is no int >= 0."""
    number, index = _or_none(_real, value), _or_none(_index, step)
    problems = []
    if number is None:
        problems.append(Problem(key="value", message=f"must be one number, not {described(value)}"))
    if index is None or index < 0:
        problems.append(Problem(key="step", message=f"must be an integer >= 0, not {described(step)}"))
    elif index > LARGEST_STEP:
        hint = "Report the number of the epoch or batch."
        problems.append(
            Problem(key="step", message=f"must be at most {LARGEST_STEP}, not {described(step)}", hint=hint)
        )
    if number is None or index is None or problems:
        raise InvalidInput("report(value, step)", problems)
    return Report(step=index, value=number)


def param_count(total: object, active: object = None) -> ParamCount:
    """How large a model is. Raises InvalidInput for what is no whole number >= 1, or for more active than total."""
    counted = _or_none(_count, total)
    counted_active = None if active is None else _or_none(_count, active)
    problems = []
    if counted is None:
        problems.append(Problem(key="params", message=f"must be a whole number >= 1, not {described(total)}"))
    if active is not None and counted_active is None:
        problems.append(Problem(key="active_params", message=f"must be a whole number >= 1, not {described(active)}"))
    if counted is not None and counted_active is not None and counted_active > counted:
        message = f"must be a part of params: {counted_active:,} are more than {counted:,}"
        problems.append(Problem(key="active_params", message=message))
    if counted is None or problems:
        raise InvalidInput("report_params(params, active_params)", problems)
    return ParamCount(total=counted, active=counted_active)


def described(value: object) -> str:
    """A value in a few words, whatever its own repr does."""
    if value is None or type(value) in (int, float):
        return _shown.repr(value)
    shape = getattr(value, "shape", None)
    extent = "" if shape is None else f", shape {_shown.repr(shape)}"
    return f"a value of type {type(value).__name__}{extent}: {' '.join(_shown.repr(value).split())}"


def _loss(value: object, where: str) -> float:
    loss = _or_none(_real, value)
    if loss is None or math.isnan(loss):
        was = described(value if loss is None else loss)
        raise InvalidObjectiveResult(
            f"the objective returned {was}{where}; expected one number, such as the validation loss"
        )
    return loss


def _wrong_keys(returned: dict[object, object], unknown: list[object]) -> str:
    wrong = f"an unknown key {_shown.repr(unknown[0])}" if unknown else "no loss"
    hint = nearest(unknown[0], RESULT_KEYS) if unknown and isinstance(unknown[0], str) else ""
    expected = 'expected one number, or {"loss": ..., "params": ..., "active_params": ...}'
    return f"the objective returned a dict with {wrong}; {expected}. {hint}".rstrip()


def _or_none(convert: Callable[[object], T], value: object) -> T | None:
    try:
        return convert(value)
    except Exception:  # user code: their __float__ and __index__ may raise anything
        return None


def _index(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError
    number: SupportsIndex = value  # type: ignore[assignment]
    return operator.index(number)


def _count(value: object) -> int:
    """As `_index`, and for 1200.0 too: a sum of NumPy's products is a float as soon as one shape is empty."""
    number = _real(value)
    count = int(number) if number.is_integer() and isinstance(value, float) else _index(value)
    if not 1 <= count <= MOST_PARAMS:
        raise ValueError
    return count


def _real(value: object) -> float:
    """float() for what is one real number (Python, NumPy, TensorFlow). Raises TypeError, or what their code raises."""
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError
    dtype = getattr(value, "dtype", None)
    if dtype is not None and str(getattr(dtype, "name", dtype)).startswith(("bool", "complex")):
        raise TypeError
    number: SupportsFloat = value  # type: ignore[assignment]
    return float(number)
