"""Conditions between parameters: which of them a point has, given the values of others. Pure.

A parameter with `when` is used only where each parameter that it names is used and has one of the values. Conditions
may chain; a space in which they form a circle is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from highnoon.shared.domain.errors import Problem, nearest
from highnoon.shared.domain.param import Categorical, Int, Param, SearchSpace, value_in
from highnoon.shared.domain.scalars import Mistake
from highnoon.shared.domain.trial import Params


def is_active(param: Param, point: Mapping[str, Any]) -> bool:
    """Whether a point with these values of the others has this parameter."""
    return all(name in point and point[name] in values for name, values in param.when.items())


def parents_first(space: SearchSpace) -> list[str]:
    """The names, each after those that it depends on, else in the order in which they were written."""
    if not is_conditional(space):
        return list(space)
    graph: TopologicalSorter[str] = TopologicalSorter()
    for name, param in space.items():
        graph.add(name, *(parent for parent in param.when if parent in space))
    return list(graph.static_order())


def is_conditional(space: SearchSpace) -> bool:
    """Whether any parameter depends on another one."""
    return any(param.when for param in space.values())


def active_part(space: SearchSpace, values: Mapping[str, Any]) -> Params:
    """These values without inactive parameters.

    A parameter whose parents have no value here may still become active, and stays.
    """
    kept: Params = {}
    ruled_out: set[str] = set()
    for name in parents_first(space):
        when = space[name].when
        if any(parent in ruled_out or (parent in kept and kept[parent] not in when[parent]) for parent in when):
            ruled_out.add(name)
        elif name in values:
            kept[name] = values[name]
    return {name: kept[name] for name in values if name in kept}


def condition_problems(space: SearchSpace, known: Collection[str]) -> list[Problem]:
    """Conditions on what is no parameter, on values that it cannot have, and circles. `known`: also unreadable ones."""
    problems = [problem for name in space for problem in _problems_of(name, space, known)]
    try:
        parents_first(space)
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        problems.append(
            Problem(key="search_space", message=f"conditions go in a circle: {circle}", hint="Leave one of them out.")
        )
    return problems


def _problems_of(name: str, space: SearchSpace, known: Collection[str]) -> Iterator[Problem]:
    for parent, values in space[name].when.items():
        key = f"search_space.{name}"
        if parent not in known:
            message = f"when names {parent}, which is no parameter"
            yield Problem(key=key, message=message, hint=nearest(parent, [other for other in space if other != name]))
        elif parent in space and not isinstance(space[parent], Categorical | Int):
            hint = "Name a categorical, a bool or an int."
            yield Problem(key=key, message=f"when names {parent}, which has no single values", hint=hint)
        elif parent in space:
            for value in values:
                try:
                    value_in(space[parent], value, f"when: the value of {parent}")
                except Mistake as mistake:
                    yield Problem(key=key, message=mistake.message, value=value, hint=mistake.hint)
