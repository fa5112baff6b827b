"""The kinds of parameters: values, and the forms in which they are written. The grammar itself is read by `space`.

Built by hand they are checked where a space is read, as written ones are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from highnoon.shared.domain import scalars
from highnoon.shared.domain.errors import nearest
from highnoon.shared.domain.scalars import Mistake
from highnoon.shared.domain.trial import ParamValue


class _Unset(Enum):
    UNSET = "unset"


UNSET = _Unset.UNSET
"""No default: None is a value that a choice may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What every kind of parameter may have besides its values.

    `when` names other parameters and the values at which this one is used: {"optimizer": "sgd"}, or a list of values.
    `default` is what trials had that ran before this parameter was added to their study.
    """

    when: Mapping[str, Any] = field(default_factory=dict, hash=False)
    default: ParamValue | _Unset = UNSET


@dataclass(frozen=True, slots=True)
class Float(_Options):
    """A real number, on a linear scale with or without a step, or on a logarithmic one."""

    low: float
    high: float
    step: float | None = field(default=None, kw_only=True)
    log: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Int(_Options):
    """A whole number; on a logarithmic scale it has no step."""

    low: int
    high: int
    step: int = field(default=1, kw_only=True)
    log: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Categorical(_Options):
    """One of some plain values without an order."""

    choices: Sequence[ParamValue]


def Bool(*, when: Mapping[str, Any] | None = None, default: ParamValue | _Unset = UNSET) -> Categorical:
    """True or false."""
    return Categorical((True, False), when=when or {}, default=default)


Param = Float | Int | Categorical
SearchSpace = dict[str, Param]


def written_form(param: Param, *, as_given: bool = False) -> Any:
    """The list that `parse_param` reads back as `param`, a table where it has a condition or a default.

    Plain JSON values only, unless it was built by hand from others and is wanted `as_given`.
    """
    listed = listed_form(param)
    if not param.when and param.default is UNSET:
        return listed
    table: dict[str, Any] = {"type": listed[0]}
    match param:
        case Categorical():
            table["choices"] = listed[1]
        case Float(low=low, high=high, step=step, log=log) | Int(low=low, high=high, step=step, log=log):
            table = {"type": "float" if isinstance(param, Float) else "int", "low": low, "high": high}
            table |= {"log": True} if log else {}
            table |= {"step": step} if len(listed) > 3 else {}
    if param.when:
        is_read = isinstance(param.when, Mapping) and not as_given
        table["when"] = {name: list(values) for name, values in param.when.items()} if is_read else param.when
    if param.default is not UNSET:
        table["default"] = param.default
    return table


def listed_form(param: Param) -> list[Any]:
    """Its kind and values in the guide's form, without condition and default."""
    match param:
        case Categorical(choices=choices):
            is_list = isinstance(choices, Sequence) and not isinstance(choices, str | bytes)
            return ["categorical", list(choices) if is_list else choices]
        case Float(low=low, high=high, step=step, log=log):
            return ["log_uniform" if log else "uniform", low, high, *(() if step is None else (step,))]
        case Int(low=low, high=high, step=step, log=log):
            return ["int_log" if log else "int", low, high, *(() if step == 1 else (step,))]


def value_in(param: Param, value: object, what: str) -> ParamValue:
    """The value in the type that the domain stores. Raises Mistake when the domain does not have it."""
    match param:
        case Categorical(choices=choices):
            if any(_is_same(choice, value) for choice in choices):
                return scalars.choice(value)
            raise Mistake(f"{what} is none of the choices", nearest(str(value), list(map(str, choices))), value=value)
        case Int(low=low, high=high, step=step):
            whole = scalars.whole(what, value)
            if low <= whole <= high and (whole - low) % step == 0:
                return whole
        case Float(low=low, high=high):
            number = scalars.number(what, value)
            if low <= number <= high:
                return number
    raise Mistake(
        f"{what} is outside of {listed_form(param)}", "Take a value that the parameter can have.", value=value
    )


def _is_same(one: object, other: object) -> bool:
    """As people see it: to Python 1 and True are equal."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
