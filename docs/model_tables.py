"""Tables of a page: the fields of a model, with type, limits and default in words."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec

_UNITS = {"_s": "seconds", "_bytes": "bytes"}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(field: FieldInfo, name: str = "") -> list[str]:
    """Type with limits, and default."""
    kind = _kind(field.annotation, field.metadata)
    unit = next((word for suffix, word in _UNITS.items() if name.endswith(suffix)), "")
    return [f"{kind}, {unit}" if unit else kind, _default(field)]


def one_line(text: str) -> str:
    return " ".join(text.split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=False)
    if default in (None, PydanticUndefined, ()):
        return "none"
    if isinstance(default, (SamplerSpec, PrunerSpec)):
        default = default.name
    return f"`{json.dumps(default) if isinstance(default, (bool, str)) else default}`"


def _kind(annotation: Any, metadata: list[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], [*metadata, *_flat(arguments[1:])])
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(one, metadata) for one in arguments if one is not type(None))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    words = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "folder"}
    word = words.get(annotation, "")
    if not word:
        known = {"SamplerSpec": "name or table", "PrunerSpec": "name or table", "EarlyStop": "table"}
        word = known.get(getattr(annotation, "__name__", ""), "list" if origin in (tuple, list) else "table")
        if "Sequence" in str(annotation):
            word = "list of texts"
    return word + _limits(metadata)


def _flat(metadata: Any) -> list[Any]:
    return [inner for one in metadata for inner in (one.metadata if isinstance(one, FieldInfo) else [one])]


def _limits(metadata: list[Any]) -> str:
    words = []
    for one in metadata:
        match one:
            case annotated_types.Ge(ge=limit):
                words.append(f"≥ {limit:,}")
            case annotated_types.Gt(gt=limit):
                words.append(f"> {limit:,}")
            case annotated_types.Le(le=limit):
                words.append(f"≤ {limit:,.10g}")
    return f" {', '.join(words)}" if words else ""
