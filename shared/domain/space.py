"""The search space: named domains, and the grammar in which people write them.

Owns the guide's tuples, and the tables that also hold a condition or a default. The kinds of parameters are in `param`,
single values are checked in `scalars`, conditions between parameters in `conditions`; `grid` counts and combines;
`samplers` makes Optuna's distributions. Bounds are inclusive. As in Optuna, a high that no step reaches is lowered to
the last value in reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from highnoon.shared.domain import scalars
from highnoon.shared.domain.conditions import condition_problems
from highnoon.shared.domain.correction_hints import domain_for
from highnoon.shared.domain.errors import ABSENT, InvalidInput, Problem, nearest
from highnoon.shared.domain.param import Categorical, Float, Int, Param, SearchSpace, value_in, written_form
from highnoon.shared.domain.scalars import Mistake
from highnoon.shared.domain.trial import ParamValue

NAME_LIMIT = 200


def parse_space(written: Mapping[str, object]) -> SearchSpace:
    """All domains. Raises InvalidInput with the problems of every parameter at once."""
    space, problems = read_space(written)
    if problems:
        raise InvalidInput("search_space", problems)
    return space


def read_space(written: object) -> tuple[SearchSpace, list[Problem]]:
    """What could be read and what is wrong with the rest; never raises."""
    if not isinstance(written, Mapping):
        return {}, [Problem(key="search_space", message="must be a table of parameters", value=written)]
    if not written:
        hint = 'Write for example learning_rate = ["log_uniform", 1e-5, 1e-3], or name the objective\'s argument trial.'
        return {}, [Problem(key="search_space", message="needs at least one parameter", hint=hint)]
    space: SearchSpace = {}
    problems: list[Problem] = []
    for name, domain in written.items():
        misnamed = misnamed_param(name)
        if misnamed:
            problems.append(misnamed)
            continue
        try:
            space[name] = parse_param(name, domain)
        except InvalidInput as invalid:
            problems += invalid.problems
    return space, problems + condition_problems(space, known=written)


def parse_param(name: str, written: object) -> Param:
    """The domain that a tuple, a list, a table or a Param describes. Raises InvalidInput with what is wrong with it."""
    shown = written_form(written, as_given=True) if isinstance(written, Float | Int | Categorical) else written
    mistakes: list[Mistake] = []
    param = _from_table(shown, mistakes) if isinstance(shown, Mapping) else _tried(lambda: _from_list(shown), mistakes)
    if param is not None and not mistakes:
        return param
    meant = "" if isinstance(shown, Mapping) and "type" in shown else domain_for(name, shown)
    problems = [
        Problem(
            key=f"search_space.{name}",
            message=mistake.message,
            value=shown if mistake.value is ABSENT else mistake.value,
            hint=meant or mistake.hint,
        )
        for mistake in mistakes
    ]
    raise InvalidInput("search_space", problems)


def _from_list(written: object) -> Param:
    if not isinstance(written, list | tuple) or not written or not isinstance(written[0], str):
        raise Mistake("is not a parameter", 'Write its kind and bounds, such as ["uniform", 0.0, 0.5].')
    kind, *arguments = written
    if kind not in KINDS:
        raise Mistake(f"unknown kind {kind!r}", nearest(kind, KINDS))
    parse, fewest, most, usage, example = KINDS[kind]
    if not fewest <= len(arguments) <= most:
        raise Mistake(f"{kind} takes {usage}", f"Write for example {example}.")
    return parse(*arguments)


def _from_table(written: Mapping[Any, Any], mistakes: list[Mistake]) -> Param | None:
    """The parameter, or None; adds everything that is wrong with the table to `mistakes`."""
    kind = written.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        hint = 'Write for example {type = "float", low = 0.0, high = 0.5}.'
        if kind is None:
            mistakes.append(Mistake("is not a parameter: its table has no type", f"Write its kind and bounds. {hint}"))
        else:
            mistakes.append(Mistake(f"unknown type {kind!r}", nearest(str(kind), TYPES), value=kind))
        return None
    required, optional = TYPES[kind]
    known = [*required, *optional, "type", "when", "default"]
    for key in written.keys() - {*known}:
        mistakes.append(Mistake(f"{key} is not a key of a {kind}", nearest(str(key), known), value=written[key]))
    for key in required:
        if key not in written:
            mistakes.append(Mistake(f"a {kind} needs {key}", f"Write it as {key} = ..., beside type."))
    when = _tried(lambda: _when(written.get("when", {})), mistakes)
    log = _tried(lambda: _flag("log", written.get("log", False)), mistakes)
    if log is None or any(key not in written for key in required):
        return None
    param = _tried(lambda: _of_table(kind, log, written), mistakes)
    if param is None or when is None:
        return None
    param = replace(param, when=when)
    if "default" not in written:
        return param
    default = _tried(lambda: value_in(param, written["default"], "default"), mistakes)
    return replace(param, default=default)


def _of_table(kind: str, log: bool, written: Mapping[str, Any]) -> Param:
    if kind == "bool":
        return Categorical((True, False))
    if kind == "categorical":
        return _categorical(written["choices"])
    bounds = written["low"], written["high"]
    step = [] if written.get("step") is None else [written["step"]]
    if log or kind in ("log_uniform", "int_log"):
        if step:
            raise Mistake("a log scale has no step", "Leave step out, or log.", value=step[0])
        return _int_log(*bounds) if kind in ("int", "int_log") else _log_uniform(*bounds)
    return _int(*bounds, *step) if kind == "int" else _uniform(*bounds, *step)


def _when(written: object) -> dict[str, tuple[ParamValue, ...]]:
    """Names of other parameters, each with the values at which this one is used."""
    if not isinstance(written, Mapping) or not all(isinstance(name, str) for name in written):
        hint = 'Write for example when = {optimizer = "sgd"}, or a list of values.'
        raise Mistake("when must be a table of parameters and values", hint, value=written)
    read: dict[str, tuple[ParamValue, ...]] = {}
    for name, values in written.items():
        listed = values if isinstance(values, list | tuple) else [values]
        if not listed:
            raise Mistake(f"when names no value of {name}", "Write at least one.", value=written)
        read[name] = tuple(scalars.choice(value) for value in listed)
    return read


def _flag(what: str, written: object) -> bool:
    if not isinstance(written, bool):
        raise Mistake(f"{what} must be true or false", value=written)
    return written


T = TypeVar("T")


def _tried(read: Callable[[], T], mistakes: list[Mistake]) -> T | None:
    try:
        return read()
    except Mistake as mistake:
        mistakes.append(mistake)
        return None


def _uniform(written_low: object, written_high: object, written_step: object = None) -> Float:
    low, high = scalars.ordered(scalars.number("low", written_low), scalars.number("high", written_high))
    if not math.isfinite(high - low):
        raise Mistake("the range from low to high is too wide for floating point")
    if written_step is None:
        return Float(low, high)
    step = scalars.positive_step(scalars.number("step", written_step))
    if (high - low) / step > scalars.EXACT:
        raise Mistake("step is too small for the range from low to high")
    return Float(low, _reached(low, high, step), step=step)


def _reached(low: float, high: float, step: float) -> float:
    """The last value that steps reach, never rounded down: read back, it must not lose a step."""
    steps = (scalars.exact(high) - scalars.exact(low)) // scalars.exact(step)
    reached = scalars.exact(low) + steps * scalars.exact(step)
    rounded = float(reached)
    return rounded if scalars.exact(rounded) >= reached else math.nextafter(rounded, math.inf)


def _log_uniform(written_low: object, written_high: object) -> Float:
    low, high = scalars.ordered(scalars.number("low", written_low), scalars.number("high", written_high))
    return Float(scalars.above_zero(low, instead="uniform"), high, log=True)


def _int(written_low: object, written_high: object, written_step: object = None) -> Int:
    low, high = scalars.ordered(scalars.whole("low", written_low), scalars.whole("high", written_high))
    step = 1 if written_step is None else scalars.positive_step(scalars.whole("step", written_step))
    return Int(low, low + (high - low) // step * step, step=step)


def _int_log(written_low: object, written_high: object) -> Int:
    low, high = scalars.ordered(scalars.whole("low", written_low), scalars.whole("high", written_high))
    return Int(scalars.above_zero(low, instead="int"), high, log=True)


def _categorical(written_choices: object) -> Categorical:
    written_choices = scalars.listed(written_choices)
    if not isinstance(written_choices, Sequence) or isinstance(written_choices, str | bytes) or not written_choices:
        raise Mistake("needs a list with at least one choice", f"Write for example {KINDS['categorical'][-1]}.")
    choices = tuple(scalars.choice(written) for written in written_choices)
    # A dict compares as Python and Optuna do: 1, 1.0 and True are one choice.
    seen: dict[ParamValue, ParamValue] = {}
    for choice in choices:
        if choice in seen:
            same = (
                f"{choice!r} is given twice"
                if repr(choice) == repr(seen[choice])
                else f"{seen[choice]!r} equals {choice!r}"
            )
            raise Mistake(f"the choices must differ, but {same}", "Leave one of them out.")
        seen[choice] = choice
    return Categorical(choices=choices)


KINDS: dict[str, tuple[Callable[..., Param], int, int, str, str]] = {
    "uniform": (_uniform, 2, 3, "low, high and, if wanted, a step", '["uniform", 0.0, 0.5]'),
    "log_uniform": (_log_uniform, 2, 2, "low and high", '["log_uniform", 1e-5, 1e-3]'),
    "int": (_int, 2, 3, "low, high and, if wanted, a step", '["int", 128, 1024, 64]'),
    "int_log": (_int_log, 2, 2, "low and high", '["int_log", 1, 1024]'),
    "categorical": (_categorical, 1, 1, "one list of choices", '["categorical", ["adam", "sgd"]]'),
}
"""For each kind: its parser, how many arguments it takes at least and at most, and both said for people."""


_BOUNDS, _STEPPED = ("low", "high"), ("step",)

TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "float": (_BOUNDS, ("step", "log")),
    "int": (_BOUNDS, ("step", "log")),
    "categorical": (("choices",), ()),
    "bool": ((), ()),
    "uniform": (_BOUNDS, _STEPPED),
    "log_uniform": (_BOUNDS, ()),
    "int_log": (_BOUNDS, ()),
}
"""For each type of a table: the keys that it needs, and those that it may have besides `when` and `default`."""


def misnamed_param(name: object) -> Problem | None:
    """Why a parameter cannot have this name; None when it can."""
    if isinstance(name, str) and name.strip() and len(name) <= NAME_LIMIT and name.isprintable():
        return None
    message = f"a parameter's name must be text of 1 to {NAME_LIMIT} printable characters"
    return Problem(key="search_space", message=message, value=name)
