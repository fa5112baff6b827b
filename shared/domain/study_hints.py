"""Hints for mistakes in the keys of a study: what to write instead, and where. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from highnoon.shared.domain.correction_hints import key_for
from highnoon.shared.domain.errors import Problem, did_you_mean, nearest
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.space import KINDS, TYPES
from highnoon.shared.domain.validation import Key

Fields = Mapping[str, object]
"""The fields of a model by name."""

_EXAMPLES = {
    ("name",): 'Write for example name = "digits".',
    ("objective",): 'Write for example objective = "train.py:objective".',
    ("early_stop", "patience"): "Write for example early_stop = {patience = 30}.",
    ("sampler", "name"): f"Valid: {', '.join(SamplerSpec.kinds)}.",
    ("pruner", "name"): f"Valid: {', '.join(PrunerSpec.kinds)}.",
}


def hint_for(key: Key, kind: str, written: Mapping[str, Any], keys: Fields, early_stop: Fields) -> str:
    """What to write instead; empty without a suggestion. `keys` are a study's, `early_stop` the keys of that table."""
    if kind == "missing":
        return _EXAMPLES.get(key, "")
    if kind != "extra_forbidden":
        return ""
    *tables, name = key
    if not tables:
        meant = _belongs_elsewhere(name, written[name], keys) or key_for(name) or did_you_mean(name, keys)
        return meant or _constant(name, written[name]) or nearest(name, keys)
    if name in keys:
        return _move_up(name, tables[0])
    return nearest(name, _options(tables, written, early_stop))


def _options(tables: Sequence[str], written: Mapping[str, Any], early_stop: Fields) -> list[str]:
    """The keys of a sampler or pruner, also of one that another wraps; else the keys of `early_stop`."""
    if tables[0] not in ("sampler", "pruner"):
        return list(early_stop)
    kinds = {"sampler": SamplerSpec.kinds, "pruner": PrunerSpec.kinds}[tables[0]]
    for table in tables:
        if table != "options":
            written = written[table]
    return list(kinds[written["name"]].model_fields)


def _belongs_elsewhere(name: str, value: object, keys: Fields) -> str:
    if isinstance(value, Mapping):
        if any(map(_is_domain, value.values())):
            key, domain = next((key, domain) for key, domain in value.items() if _is_domain(domain))
            line = f'"{name}.{key}" = {json.dumps(domain, default=str)}'
            return f"A parameter stands under [search_space], a name with a dot in quotes: {line}."
        if value.keys() & keys.keys():
            return f"The keys of a study stand at the top, without [{name}]."
    return "A parameter stands under [search_space]." if _is_domain(value) else ""


def _constant(name: str, value: object) -> str:
    """A number that no key of a study is near to, such as batch_size, is for the objective."""
    if isinstance(value, bool | int | float):
        line = f'{name} = ["categorical", [{json.dumps(value)}]]'
        return f"A value that the objective gets stands under [search_space]: {line}."
    return ""


def _is_domain(value: object) -> bool:
    if isinstance(value, Mapping):
        return isinstance(value.get("type"), str) and value["type"] in TYPES
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], str) and value[0] in KINDS


def moved_up(problem: Problem, keys: Fields) -> Problem:
    """TOML takes every key below [search_space] for a parameter, also one that was meant for the study."""
    _, _, name = problem.key.partition(".")
    if name not in keys or isinstance(problem.value, list | tuple | Mapping):
        return problem
    return replace(problem, hint=_move_up(name, "search_space"))


def _move_up(name: str, table: str) -> str:
    return f"Move {name} above [{table}], to the keys of the study."
