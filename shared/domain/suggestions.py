"""What a person probably meant: the right line for mistakes that are made often. Pure.

Each function returns a hint, or nothing where it cannot guess. Whether something is wrong is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from numbers import Real

from highnoon.shared.domain.errors import did_you_mean
from highnoon.shared.domain.scalars import listed, plain

_WORDS = {
    "bayes": "tpe", "bayesian": "tpe", "gp": "tpe", "hyperopt": "tpe", "cma": "cmaes", "cma-es": "cmaes",
    "randomsearch": "random", "gridsearch": "grid",
    "asha": "hyperband", "sha": "hyperband", "successive_halving": "hyperband", "halving": "hyperband", "nop": "none",
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

_LOGARITHMIC = {"int": "int_log", "uniform": "log_uniform", "float": "log_uniform", "int_log": "int_log"}

_KEYS = {
    "study_name": "name", "trials": "n_trials", "num_trials": "n_trials", "max_trials": "n_trials",
    "num_samples": "n_trials", "space": "search_space", "parameters": "search_space", "params": "search_space",
    "algorithm": "sampler", "scheduler": "pruner", "mode": "direction", "goal": "direction",
    "max_time": "timeout", "time_limit": "timeout", "random_state": "seed", "random_seed": "seed",
}  # fmt: skip
"""Other names of the keys of a study."""

_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def word_for(written: object, valid: Iterable[str]) -> str:
    """For a name among few: the valid one by another name, or the nearest."""
    choices = list(valid)
    meant = _WORDS.get(str(written).lower())
    return f"Write {meant}." if meant in choices else did_you_mean(str(written), choices)


def key_for(name: str) -> str:
    """For a key that a study does not have, but other programs do."""
    meant = _KEYS.get(name.lower())
    return f"Write {meant}." if meant else ""


def seconds_for(written: object) -> str:
    """For a time such as "2h" or "90 min"."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(written).lower())
    unit = _SECONDS.get(found[2].rstrip("s") or "s") or _SECONDS.get(found[2].removesuffix("ute")) if found else None
    return f"Write {float(found[1]) * unit:g}: it is in seconds." if found and unit else ""


def domain_for(name: str, written: object) -> str:
    """For a parameter of a search space: the whole line that was probably meant."""
    if isinstance(written, Mapping):
        return _flattened(name, written)
    if _is_plain(written):
        return f"Write {_line('categorical', [written])} for a constant."
    listing = listed(written)
    if not isinstance(listing, list | tuple) or not listing:
        return ""
    first, *rest = listing
    kind = _KINDS.get(first.lower(), first.lower()) if isinstance(first, str) else ""
    if kind in ("bool", "boolean"):
        return f"Write {_line('categorical', [True, False])}."
    if rest and kind in ("int", "uniform", "log_uniform", "int_log") and _says_log(rest[-1]) and len(rest) == 3:
        return f"Write {_line(_LOGARITHMIC.get(kind, kind), *rest[:2])}."
    if kind == "categorical" and rest:
        choices = listed(rest[0])
        return f"Write {_line(kind, list(choices) if isinstance(choices, list | tuple) else rest)}."
    if kind in _KINDS.values() and first != kind and rest:
        return f"Write {_line(kind, *rest)}."
    if kind in _KINDS.values() or not all(map(_is_plain, listing)):
        return ""
    if len(listing) == 2 and all(_is_number(value) for value in listing) and listing[0] < listing[1]:
        range_kind = "int" if all(isinstance(value, int) for value in listing) else "uniform"
        return f"Write {_line(range_kind, *listing)} for a range, {_line('categorical', list(listing))} for two choices."
    return "" if did_you_mean(str(first), _KINDS) and any(map(_is_number, rest)) else _choices(listing)


def _choices(values: Iterable[object]) -> str:
    return f"Write {_line('categorical', list(values))}."


def _flattened(name: str, table: Mapping[object, object]) -> str:
    """TOML makes a table of model.lr = [...]; other files nest on purpose."""
    for key, value in table.items():
        if isinstance(value, list | tuple):
            line = f'"{name}.{key}" = {json.dumps(list(value), default=str)}'
            return f"Parameters are not nested, and a name with a dot needs quotes: {line}."
    return ""


def _line(kind: str, *arguments: object) -> str:
    return json.dumps([kind, *map(plain, arguments)], ensure_ascii=False, default=str)


def _says_log(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower().startswith("log"))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | str | Real)
