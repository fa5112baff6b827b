"""What a study may change about its search space, by one rule in process and on a cluster. Pure.

Bounds and steps move freely, choices may be added, parameters may be removed, and added with a `default`, which is what
earlier trials had. Type and scale may not change, nor may a choice be taken away: trials would have lost their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from highnoon.shared.domain.param import UNSET, Categorical, Param, SearchSpace, value_in, written_form
from highnoon.shared.domain.scalars import Mistake
from highnoon.shared.domain.trial import ParamValue

REMEDY = "Undo this, or give the study another name"


def refused_changes(before: SearchSpace, now: SearchSpace) -> list[str]:
    """Everything that keeps a study with trials of `before` from going on with `now`, one line for each."""
    return [line for name, param in now.items() for line in _refused(name, before.get(name), param, before)]


def _refused(name: str, before: Param | None, now: Param, space: SearchSpace) -> Iterator[str]:
    shown = written_form(now)
    if before is None:
        if now.default is UNSET and _was_possible(now, space):
            wanted = written_form(replace(now, default=_some_value(now)))
            yield f"{name} is new and has no default for earlier trials: write for example {wanted}"
        return
    change = f"{name} was {written_form(before)} and is now {shown}"
    if type(before) is not type(now):
        yield f"{change}: its type may not change"
    elif isinstance(before, Categorical) and isinstance(now, Categorical):
        lost = [choice for choice in before.choices if not _has(now, choice)]
        if lost:
            yield f"{change}: choices may be added, not taken away ({', '.join(map(repr, lost))})"
    elif before.log != now.log:  # type: ignore[union-attr]
        yield f"{change}: its scale may not change"


def _was_possible(param: Param, before: SearchSpace) -> bool:
    """Whether earlier trials could have had it: not one that belongs to a choice that was added with it."""
    return all(
        parent in before and any(_has(before[parent], value) for value in values)
        for parent, values in param.when.items()
    )


def _has(param: Param, value: object) -> bool:
    try:
        value_in(param, value, "the value")
    except Mistake:
        return False
    return True


def _some_value(param: Param) -> ParamValue:
    return param.choices[0] if isinstance(param, Categorical) else param.low
