"""The page python-api.md: every public name of `highnoon`, with its signature and docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from model_tables import one_line

import highnoon as hn

_HEAD = """\
<!-- Made by docs/generate.py from the docstrings: `make docs` writes it again. -->
# Python API

`import highnoon as hn`. Everything that a study in Python needs; importing it costs next to nothing, since each name is
loaded when it is first used. Error classes are defined in `highnoon.shared.domain.errors`; all of them are `HighNoonError`.
"""


def python_api() -> str:
    """Every public name of `highnoon`, with its signature and docstring."""
    parts = [_HEAD]
    for name in sorted(hn.__all__, key=str.lower):
        if name in ("__version__", "callbacks", "PRESETS", "hsmn_search_space"):
            continue
        parts += _documented(name, getattr(hn, name), 2)
    parts.append("## highnoon.callbacks\n")
    for name in sorted(hn.callbacks.__all__, key=str.lower):
        parts += _documented(name, getattr(hn.callbacks, name), 3)
    return "\n".join(parts).rstrip() + "\n"


def _documented(name: str, value: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}\n"
    if not callable(value):
        yield f"`{value!r}`\n"
        return
    yield f"```text\n{name}{_signature(value)}\n```\n"
    yield f"{_prose(inspect.getdoc(value) or '')}\n"
    if inspect.isclass(value) and not issubclass(value, BaseException):
        ours = [base for base in reversed(value.__mro__) if base.__module__.startswith("highnoon")]
        for member, found in sorted({name: found for base in ours for name, found in vars(base).items()}.items()):
            text = inspect.getdoc(found) or ""
            if member.startswith("_") or not text or member in ("model_config",):
                continue
            if isinstance(found, property):
                yield f"- **`{member}`**: {one_line(text)}"
            elif inspect.isfunction(found) or isinstance(found, (classmethod, staticmethod)):
                function = found if inspect.isfunction(found) else found.__func__
                yield f"- **`{member}{_signature(function, without_self=True)}`**: {one_line(text)}"
        yield ""


def _signature(value: Any, *, without_self: bool = False) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    parameters = list(signature.parameters.values())
    if without_self and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    shown = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    return re.sub(r"<.*? at 0x[0-9a-f]+>", "...", str(shown))


def _prose(text: str) -> str:
    """Literal blocks of a docstring stay literal."""
    return re.sub(
        r"\n\n((?:    .*\n?|\n(?=    ))+)", lambda found: f"\n\n```text\n{inspect.cleandoc(found[1])}\n```\n", text
    )
