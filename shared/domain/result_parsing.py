"""What an objective hands over, read into plain values: a report, a count of parameters, a result.

Owns which objects pass for a number (Python's, NumPy's, TensorFlow's) and the words for those that do not. Needs no
study: `score` decides what a value is worth.
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat, SupportsIndex, TypeGuard, TypeVar

from highnoon.shared.domain.errors import InvalidInput, InvalidObjectiveResult, Problem, did_you_mean
from highnoon.shared.domain.states import RESERVED
from highnoon.shared.domain.trial import ParamCount, Report

T = TypeVar("T")

RESULT_KEYS = ("loss", "params", "active_params")
MOST_PARAMS = 2**63 - 1
LONGEST_NAME = 100
"""Of a metric."""
LARGEST_STEP = 2**31 - 1
"""Optuna's column holds no larger one."""

_shown = reprlib.Repr()
_shown.maxother = _shown.maxstring = 80


def result(returned: object) -> tuple[float, ParamCount | None]:
    """The loss that an objective owes, and the count if it gave one. Raises InvalidObjectiveResult with what it was.

    A tuple or list of one number is that number, as Optuna takes it.
    """
    if isinstance(returned, tuple | list) and len(returned) == 1:
        (returned,) = returned
    if not _is_mapping(returned):
        return _loss(returned, ""), None
    if "loss" not in returned:
        raise InvalidObjectiveResult(_without_loss(returned))
    return _loss(returned["loss"], " as loss"), count_in(returned)


def values(returned: object, names: Sequence[str], known: Mapping[str, float]) -> tuple[float, ...]:
    """A number for each of several objectives, from a mapping by name, or from a tuple or list in their order.

    What a mapping lacks is taken from `known`: what was reported otherwise. Raises InvalidObjectiveResult.
    """
    if _is_mapping(returned):
        missing = [name for name in names if name not in returned and name not in known]
        if missing:
            hints = {did_you_mean(key, missing) for key in returned if isinstance(key, str)} - {""}
            text = f"the objective returned a dict without {' and '.join(missing)}. {' '.join(sorted(hints))}"
            raise InvalidObjectiveResult(text.rstrip())
        given = [returned.get(name, known.get(name)) for name in names]
    elif isinstance(returned, tuple | list) and len(returned) == len(names):
        given = list(returned)
    else:
        example = ", ".join(f'"{name}": ...' for name in names)
        raise InvalidObjectiveResult(
            f"the objective returned {described(returned)}; the study has {len(names)} objectives, so return "
            f"{{{example}}}, or a tuple of {len(names)} numbers in this order"
        )
    return tuple(_loss(value, f" as {name}") for name, value in zip(names, given, strict=True))


def count_in(returned: object) -> ParamCount | None:
    """The count in a returned mapping. Raises InvalidObjectiveResult for one that is none."""
    if not _is_mapping(returned):
        return None
    total, active = returned.get("params"), returned.get("active_params")
    if total is None and active is None:
        return None
    try:
        return param_count(total, active)
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


def further_numbers(returned: object) -> tuple[dict[str, float], list[str]]:
    """What a returned mapping holds beside loss and count: the numbers, and the names of what can be none."""
    items = returned.items() if _is_mapping(returned) else ()
    return numbers_of({name: value for name, value in items if name not in RESULT_KEYS})


def numbers_of(given: Mapping[Any, object]) -> tuple[dict[str, float], list[str]]:
    """Those that can be metrics, and the names of what can be none."""
    numbers, others = {}, []
    for name, value in given.items():
        number = _or_none(_real, value)
        if number is None or not can_name(name):
            others.append(_shown.repr(name))
        else:
            numbers[name] = number
    return numbers, others


def _is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Asks the abstract class only where there are keys: for a number it visits all classes there are, and a forked
    trial copies what it visits."""
    return isinstance(value, dict) or (hasattr(type(value), "keys") and isinstance(value, Mapping))


def metrics(given: Mapping[str, object], step: object = None) -> tuple[dict[str, float], int | None]:
    """Numbers by their names, and a step. Raises InvalidInput with every mistake."""
    index = None if step is None else _or_none(_index, step)
    problems = []
    if step is not None and (index is None or not 0 <= index <= LARGEST_STEP):
        message = f"must be an integer from 0 to {LARGEST_STEP}, not {described(step)}"
        problems.append(Problem(key="step", message=message))
    numbers = {name: _or_none(_real, value) for name, value in given.items()}
    for name, number in numbers.items():
        if not can_name(name):
            message = f"must be 1 to {LONGEST_NAME} printable characters, and not begin with {RESERVED}"
            problems.append(Problem(key="name", message=message, value=name))
        elif number is None:
            problems.append(Problem(key=name, message=f"must be one number, not {described(given[name])}"))
    if problems:
        raise InvalidInput("log(step, **metrics)", problems)
    return {name: number for name, number in numbers.items() if number is not None}, index


def can_name(name: object) -> bool:
    """Whether a metric may have this name."""
    return (
        isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() and not name.startswith(RESERVED)
    )


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


def _without_loss(returned: Mapping[object, object]) -> str:
    texts = [key for key in returned if isinstance(key, str)]
    hint = next((found for key in texts if (found := did_you_mean(key, ["loss"]))), "")
    expected = 'expected one number, or {"loss": ..., "params": ..., "active_params": ...} with further numbers'
    return f"the objective returned a dict with no loss; {expected}. {hint}".rstrip()


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
