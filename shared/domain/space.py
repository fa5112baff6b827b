"""The search space: named domains, and the grammar in which people write them.

Owns the kinds of parameters and the guide's tuples for them. Single values are checked in `scalars`; `grid` counts
and combines; `samplers` makes Optuna's distributions. Bounds are inclusive. As in Optuna, a high that no step reaches
is lowered to the last value in reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from highnoon.shared.domain import scalars
from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.scalars import Mistake
from highnoon.shared.domain.suggestions import domain_for
from highnoon.shared.domain.trial import ParamValue

NAME_LIMIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """A real number on a linear scale."""

    low: float
    high: float
    step: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogUniform:
    """A real number on a logarithmic scale."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Int:
    """A whole number; on a logarithmic scale it has no step."""

    low: int
    high: int
    step: int = 1
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Categorical:
    """One of some plain values without an order."""

    choices: tuple[ParamValue, ...]


Param = Uniform | LogUniform | Int | Categorical
SearchSpace = dict[str, Param]


def parse_space(written: Mapping[str, object], source: str = "search_space") -> SearchSpace:
    """All domains. Raises InvalidInput with the problems of every parameter at once."""
    space, problems = read_space(written)
    if problems:
        raise InvalidInput(source, problems)
    return space


def read_space(written: object) -> tuple[SearchSpace, list[Problem]]:
    """What could be read and what is wrong with the rest; never raises."""
    if not isinstance(written, Mapping):
        return {}, [Problem(key="search_space", message="must be a table of parameters", value=written)]
    if not written:
        hint = 'Write for example learning_rate = ["log_uniform", 1e-5, 1e-3].'
        return {}, [Problem(key="search_space", message="needs at least one parameter", hint=hint)]
    space: SearchSpace = {}
    problems: list[Problem] = []
    for name, domain in written.items():
        misnamed = _misnamed(name)
        if misnamed:
            problems.append(misnamed)
            continue
        try:
            space[name] = parse_param(name, domain)
        except InvalidInput as invalid:
            problems += invalid.problems
    return space, problems


def parse_param(name: str, written: object) -> Param:
    """The domain that a tuple, a list or a Param describes. Raises InvalidInput with one Problem."""
    try:
        return _parsed(_as_list(written))
    except Mistake as mistake:
        shown = _as_list(written)
        hint = domain_for(name, shown) or mistake.hint
        problem = Problem(key=f"search_space.{name}", message=mistake.message, value=shown, hint=hint)
        raise InvalidInput("search_space", [problem]) from None


def written_form(param: Param) -> list[ParamValue | list[ParamValue]]:
    """The list that `parse_param` reads back as `param`; plain JSON values only."""
    match param:
        case Uniform(low=low, high=high, step=step):
            return ["uniform", low, high] if step is None else ["uniform", low, high, step]
        case LogUniform(low=low, high=high):
            return ["log_uniform", low, high]
        case Int(low=low, high=high, step=step, log=log):
            scale = "int_log" if log else "int"
            return [scale, low, high] if step == 1 else [scale, low, high, step]
        case Categorical(choices=choices):
            return ["categorical", list(choices)]


def _as_list(written: object) -> object:
    """A Param may have been built by hand from anything, so it passes the same checks as a written one."""
    if isinstance(written, Categorical):
        return ["categorical", written.choices]
    return written_form(written) if isinstance(written, Uniform | LogUniform | Int) else written


def _parsed(written: object) -> Param:
    if not isinstance(written, list | tuple) or not written or not isinstance(written[0], str):
        raise Mistake("is not a parameter", 'Write its kind and bounds, such as ["uniform", 0.0, 0.5].')
    kind, *arguments = written
    if kind not in KINDS:
        raise Mistake(f"unknown kind {kind!r}", nearest(kind, KINDS))
    parse, fewest, most, usage, example = KINDS[kind]
    if not fewest <= len(arguments) <= most:
        raise Mistake(f"{kind} takes {usage}", f"Write for example {example}.")
    return parse(*arguments)


def _uniform(written_low: object, written_high: object, written_step: object = None) -> Uniform:
    low, high = scalars.ordered(scalars.number("low", written_low), scalars.number("high", written_high))
    if not math.isfinite(high - low):
        raise Mistake("the range from low to high is too wide for floating point")
    if written_step is None:
        return Uniform(low=low, high=high)
    step = scalars.positive_step(scalars.number("step", written_step))
    if (high - low) / step > scalars.EXACT:
        raise Mistake("step is too small for the range from low to high")
    return Uniform(low=low, high=_reached(low, high, step), step=step)


def _reached(low: float, high: float, step: float) -> float:
    """The last value that steps reach, never rounded down: read back, it must not lose a step."""
    steps = (scalars.exact(high) - scalars.exact(low)) // scalars.exact(step)
    reached = scalars.exact(low) + steps * scalars.exact(step)
    rounded = float(reached)
    return rounded if scalars.exact(rounded) >= reached else math.nextafter(rounded, math.inf)


def _log_uniform(written_low: object, written_high: object) -> LogUniform:
    low, high = scalars.ordered(scalars.number("low", written_low), scalars.number("high", written_high))
    return LogUniform(low=scalars.above_zero(low, instead="uniform"), high=high)


def _int(written_low: object, written_high: object, written_step: object = None) -> Int:
    low, high = scalars.ordered(scalars.whole("low", written_low), scalars.whole("high", written_high))
    step = 1 if written_step is None else scalars.positive_step(scalars.whole("step", written_step))
    return Int(low=low, high=low + (high - low) // step * step, step=step)


def _int_log(written_low: object, written_high: object) -> Int:
    low, high = scalars.ordered(scalars.whole("low", written_low), scalars.whole("high", written_high))
    return Int(low=scalars.above_zero(low, instead="int"), high=high, log=True)


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
                f"{choice!r} is there twice"
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


def _misnamed(name: object) -> Problem | None:
    if isinstance(name, str) and name.strip() and len(name) <= NAME_LIMIT and name.isprintable():
        return None
    message = f"a parameter's name must be text of 1 to {NAME_LIMIT} printable characters"
    return Problem(key="search_space", message=message, value=name)
