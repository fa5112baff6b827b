"""Single values of the form of a new study: as a field shows them, and read back as they were.

What cannot be read stays text, so that the message about it shows what was written. Which field holds what is up to
`forms`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_QUOTED = r'(?<![^\s,;=])"(?:[^"\\]|\\.)*"(?=\s*(?:[,;]|$))'
"""A whole word in quotes; not the inches of `5" pipe`."""
_UNTIL = {separator: re.compile(rf"(?:{_QUOTED}|[^{separator}])+") for separator in ",;"}


def number(text: str, kind: type[int] | type[float]) -> object:
    """A number, of `kind` where that is possible; else the text."""
    try:
        return kind(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def shown(value: object) -> str:
    """A value that is read back as the same one; the short form of a number where that is."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def choices(text: str) -> list[object]:
    """`adam, 3, "a,b"` as a list."""
    return [choice(word) for word in _UNTIL[","].findall(text) if word.strip()]


def choice(word: str) -> object:
    """As in a study file: numbers, true, false and null are what they look like, all else is text."""
    try:
        value = json.loads(word.strip())
    except (ValueError, RecursionError):
        return word.strip()
    return value if isinstance(value, str | int | float | bool) or value is None else word.strip()


def shown_choice(value: object) -> str:
    """Text that might be read as anything else gets quotes: a number, two choices, two conditions, a quotation."""
    if isinstance(value, str) and choices(value) == [value] and not {";", '"'} & {*value}:
        return value
    return json.dumps(value, ensure_ascii=False)


def when(text: str) -> object:
    """`optimizer = sgd, adam; depth = 2` as a table; what is none stays text."""
    conditions = [condition.partition("=") for condition in _UNTIL[";"].findall(text) if condition.strip()]
    if not all(equals for _, equals, _ in conditions):
        return text
    return {name.strip(): choices(values) for name, _, values in conditions}


def pairs(text: str, sign: str) -> list[tuple[str, str]]:
    """`loss = minimize, size = minimize` as names with their values; [] where that is not its form."""
    found = [[part.strip() for part in re.split(sign, pair, maxsplit=1)] for pair in text.split(",")]
    return [(name, value) for name, value in found] if all(len(pair) == 2 for pair in found) else []


def options(text: str) -> object:
    """The inside of an inline table, such as `n_startup_trials = 20, group = true`; else the text."""
    return lines(f"options = {{{text}}}").get("options", text)


def lines(text: str) -> dict[str, Any]:
    """The keys of lines of a study file; {} where they cannot be read."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):  # also an integer of 5,000 digits, and tables nested thousands deep
        return {}


def inline(value: object) -> str:
    """A value of a study file on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {inline(inner)}' for key, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def twice(names: Iterable[str]) -> list[str]:
    """Those that are there more than once."""
    listed = list(names)
    return [name for name in dict.fromkeys(listed) if listed.count(name) > 1]
