"""From pydantic's errors to Problems: plain English, the key as the person wrote it, the nearest valid choice.

Owns the sentences for what pydantic itself finds. Checks of our own travel through pydantic as finished Problems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from highnoon.shared.domain.correction_hints import seconds_for, word_for
from highnoon.shared.domain.errors import ABSENT, Problem
from highnoon.shared.domain.scalars import rewritten

Key = tuple[str, ...]

_SENTENCES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "extra_forbidden": "is not a known key",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "invalid_key": "a key must be text",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_attributes_type": "must be an object",
    "model_type": "must be a name, or a table with a name",
    "string_type": "must be text",
    "too_long": "must have at most {max_length}",
    "too_short": "must have at least {min_length}",
}


def refusal(problems: Iterable[Problem]) -> ValidationError:
    """What a pydantic validator raises, so that `problems_in` finds exactly these Problems."""
    details = [
        InitErrorDetails(type=PydanticCustomError("problem", "{problem}", {"problem": problem}), input=problem.value)
        for problem in problems
    ]
    return ValidationError.from_exception_data("problems", details)


def problems_in(error: ValidationError, written: object, hint_for: Callable[[Key, str], str]) -> list[Problem]:
    """One Problem for each error; `hint_for(key, kind)` gives the right keys for `missing` and `extra_forbidden`."""
    return [_problem(dict(detail), written, hint_for) for detail in error.errors(include_url=False)]


def _problem(detail: dict[str, Any], written: object, hint_for: Callable[[Key, str], str]) -> Problem:
    kind = detail["type"]
    if kind == "problem":
        problem: Problem = detail["ctx"]["problem"]
        return problem
    key = _written_key(detail["loc"], written)
    return problem_of(detail, key, hint_for(key, kind))


def problem_of(detail: Mapping[str, Any], key: Key, hint: str) -> Problem:
    """One of pydantic's errors in our words; without a hint with the one for its kind."""
    kind, context = detail["type"], detail.get("ctx", {})
    return Problem(
        key=".".join(key),
        message=sentence_for(kind, context) or detail["msg"],
        value=ABSENT if kind == "missing" else detail["input"],
        hint=hint or _hint(kind, key, detail["input"], context),
    )


def sentence_for(kind: str, context: Mapping[str, Any]) -> str:
    """Our message for this kind of pydantic's errors; empty for a kind without one."""
    said = {name: _said(limit) for name, limit in context.items()}
    return _SENTENCES.get(kind, "").format(**said)


def _hint(kind: str, key: Key, value: object, context: Mapping[str, Any]) -> str:
    if kind == "missing":
        return ""
    if value is None:
        return (
            'Write "none" for no pruning, or leave it out.' if key == ("pruner",) else "Leave it out for the default."
        )
    if kind == "literal_error":
        return word_for(value, re.findall(r"'([^']*)'", context["expected"]))
    if kind in ("int_type", "float_type"):
        in_seconds = seconds_for(value) if key and key[-1].endswith("timeout") else ""
        return in_seconds or rewritten(value, int if kind == "int_type" else float)
    return ""


def _said(limit: object) -> object:
    """Pydantic gives the limits of a real number as 1000000000.0."""
    if isinstance(limit, float) and limit.is_integer():
        limit = int(limit)
    return f"{limit:,}" if isinstance(limit, int) else limit


def _written_key(loc: tuple[int | str, ...], written: object) -> Key:
    """The part of pydantic's location that stands in the file: there `sampler` may be a name, its options flat."""
    key: list[str] = []
    for part in loc:
        if not isinstance(written, Mapping):
            break
        if part != "options" or part in written:
            key.append(str(part))
            written = written.get(part)
    return tuple(key)
