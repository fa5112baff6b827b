"""What a person probably meant: the right line for mistakes that are made often. Pure.

Each function returns a hint, or nothing where it cannot guess. Whether something is wrong is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from highnoon.shared.domain.errors import did_you_mean
from highnoon.shared.domain.scalars import listed, plain

_WORDS = {
    "bayes": "tpe", "bayesian": "tpe", "hyperopt": "tpe", "cma": "cmaes", "cma-es": "cmaes",
    "randomsearch": "random", "gridsearch": "grid", "bruteforce": "brute_force",
    "populationbasedtraining": "pbt", "population_based": "pbt", "evolution": "pbt",
    "sobol": "qmc", "halton": "qmc", "nsgaii": "nsga2", "nsgaiii": "nsga3",
    "sha": "asha", "successive_halving": "asha", "halving": "asha", "nop": "none",
    "max": "maximize", "maximise": "maximize", "min": "minimize", "minimise": "minimize",
    "process": "fork", "subprocess": "spawn", "thread": "none", "cuda": "gpu",
}  # fmt: skip
"""Other names of samplers, pruners, directions and so on; one counts only where what it stands for is valid."""

_KINDS = {
    "choice": "categorical", "choices": "categorical", "cat": "categorical", "category": "categorical",
    "enum": "categorical", "constant": "categorical", "fixed": "categorical",
    "float": "uniform", "real": "uniform", "double": "uniform",
    "loguniform": "log_uniform", "log": "log_uniform", "log_float": "log_uniform", "float_log": "log_uniform",
    "integer": "int", "randint": "int", "int_uniform": "int", "quniform": "uniform",
    "log_int": "int_log", "int_loguniform": "int_log", "lograndint": "int_log",
}  # fmt: skip
"""Other names of the kinds of parameters."""

_NAMES = frozenset(_KINDS.values())
_LOGARITHMIC = {"int": "int_log", "int_log": "int_log", "uniform": "log_uniform", "log_uniform": "log_uniform"}

_KEYS = {
    "study_name": "name", "trials": "n_trials", "num_trials": "n_trials", "max_trials": "n_trials",
    "num_samples": "n_trials", "space": "search_space", "parameters": "search_space", "params": "search_space",
    "algorithm": "sampler", "scheduler": "pruner", "mode": "direction", "goal": "direction",
    "directions": "objectives", "goals": "objectives", "metrics": "objectives",
    "max_time": "timeout", "time_limit": "timeout", "random_state": "seed", "random_seed": "seed",
}  # fmt: skip
"""Other names of the keys of a study."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*(?:(s)(?:ec\w*)?|(m)(?:in\w*)?|(h)(?:ours?|rs?)?|(d)(?:ays?)?)\s*", re.IGNORECASE
)


def word_for(written: object, valid: Iterable[str]) -> str:
    """For a name among few: the valid one in lower case or by another name, or the nearest."""
    choices = list(valid)
    word = str(written).lower()
    meant = word if word in choices else _WORDS.get(word)
    return f"Write {meant}." if meant in choices else did_you_mean(str(written), choices)


def key_for(name: str) -> str:
    """For a key that a study does not have, but other programs do."""
    meant = _KEYS.get(name.lower())
    return f"Write {meant}." if meant else ""


def seconds_for(written: object) -> str:
    """For a time such as "2h" or "90 min"."""
    found = _TIME.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        return ""
    unit = next(unit for unit in found.groups()[1:] if unit)
    return f"Write {float(found[1]) * _SECONDS[unit.lower()]:g}: it is in seconds."


def domain_for(name: str, written: object) -> str:
    """For a parameter of a search space: the whole line that was probably meant."""
    if isinstance(written, Mapping):
        return _flattened(name, written)
    if _is_plain(written):
        return "" if written in _NAMES else f"Write {_line('categorical', [written])} for a constant."
    values = listed(written)
    if not isinstance(values, list | tuple) or not values:
        return ""
    line = _python_line if isinstance(written, tuple) else _line
    first, *rest = values
    kind = _KINDS.get(first.lower(), first.lower()) if isinstance(first, str) else ""
    if kind in _LOGARITHMIC and len(rest) == 3 and _says_log(rest[-1]):
        return f"Write {line(_LOGARITHMIC[kind], *rest[:2])}."
    if kind == "categorical" and rest and all(map(_is_plain, rest)):
        return f"Write {line(kind, rest)}."
    if kind in ("bool", "boolean"):
        return f"Write {line('categorical', [True, False])}."
    if kind in _NAMES:
        return f"Write {line(kind, *map(listed, rest))}." if first != kind and rest else ""
    return _as_choices(values, line)


def cut_short(written: Mapping[str, object], space: Mapping[str, Any]) -> list[str]:
    """A sentence for each range that ends below its high, because no step reaches that."""
    lines = []
    for name, param in space.items():
        line, step = written.get(name), getattr(param, "step", None)
        high = line.get("high") if isinstance(line, Mapping) else getattr(line, "high", None)
        if isinstance(line, list | tuple) and len(line) > 2:
            high = line[2]
        if step and isinstance(high, Real) and float(high) - float(param.high) > 1e-9 * abs(float(high)):
            lines.append(
                f"search_space.{name}: in steps of {step:g} from {param.low:g} the last value tried is {param.high:g}, "
                f"not {high:g}"
            )
    return lines


def _as_choices(values: Sequence[object], line: Callable[..., str]) -> str:
    """Values without a kind: all of them text, or all numbers. Two numbers may be bounds as well."""
    if not all(isinstance(value, str) for value in values) and not all(map(_is_number, values)):
        return ""
    choices = line("categorical", list(values))
    if len(values) != 2 or not _is_number(values[0]):
        return f"Write {choices}."
    kind = "int" if all(isinstance(value, Integral) for value in values) else "uniform"
    return f"Write {line(kind, *values)} for a range, {choices} for two choices."


def _flattened(name: str, table: Mapping[object, object]) -> str:
    """TOML makes a table of model.lr = [...]; other files nest on purpose."""
    for key, value in table.items():
        if isinstance(value, list | tuple):
            line = f'"{name}.{key}" = {json.dumps(list(value), default=str)}'
            return f"Parameters are not nested, and a name with a dot needs quotes: {line}."
    return ""


def _line(kind: str, *arguments: object) -> str:
    return json.dumps([kind, *map(plain, arguments)], ensure_ascii=False, default=str)


def _python_line(kind: str, *arguments: object) -> str:
    """Only Python has tuples, so that who writes one reads Python as well."""
    return repr((kind, *map(plain, arguments)))


def _says_log(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower().startswith("log"))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_plain(value: object) -> bool:
    return isinstance(value, (bool, str, Real))
