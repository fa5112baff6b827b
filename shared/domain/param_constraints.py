"""Constraints between parameters: `a <= b`, `a + b <= 1`, `width % heads == 0`. A point that breaks one is never run.

Owns a small grammar: comparisons (also chained) of sums, differences, products, quotients and remainders of numbers and
of numeric parameters. Read with Python's parser, and then walked node by node: nothing is executed.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from highnoon.shared.domain.errors import Problem, nearest
from highnoon.shared.domain.param import Categorical, Param, SearchSpace

TEXT_LIMIT = 300
EXAMPLE = 'Write for example "a <= b", "a + b <= 1" or "width % heads == 0".'

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class _Unreadable(Exception):
    pass


@dataclass(frozen=True, slots=True)
class ParamConstraint:
    """What points of a space must keep, as it was written."""

    text: str
    names: tuple[str, ...] = field(compare=False)
    _comparison: ast.Compare = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.text

    def holds(self, point: Mapping[str, Any]) -> bool:
        """Whether the point keeps it. One that has not all of its parameters, as some are inactive, does.

        What has no result, such as a division by 0, does not.
        """
        if any(name not in point for name in self.names):
            return True
        try:
            parts = [self._comparison.left, *self._comparison.comparators]
            values = [_value(part, point) for part in parts]
            pairs = zip(self._comparison.ops, values, values[1:], strict=False)
            return all(_COMPARISONS[type(compare)](left, right) for compare, left, right in pairs)
        except (ArithmeticError, ValueError):
            return False


def read_param_constraints(written: object, space: SearchSpace | None) -> tuple[list[ParamConstraint], list[Problem]]:
    """The constraints, and what is wrong with others; never raises. Names are compared where the space is known."""
    if isinstance(written, str) or not isinstance(written, Iterable) or isinstance(written, Mapping):
        message = "must be a list of constraints"
        return [], [Problem(key="param_constraints", message=message, value=written, hint=EXAMPLE)]
    read: list[ParamConstraint] = []
    problems: list[Problem] = []
    for text in written:
        try:
            constraint = _parsed(text)
        except _Unreadable as unreadable:
            problems.append(Problem(key="param_constraints", message=str(unreadable), value=text, hint=EXAMPLE))
            continue
        wrong = [] if space is None else list(_problems_of(constraint, space))
        problems += wrong
        read += [] if wrong else [constraint]
    return read, problems


def parsed_constraints(texts: Iterable[str]) -> tuple[ParamConstraint, ...]:
    """Of texts that `read_param_constraints` has accepted."""
    return tuple(map(_parsed, texts))


def broken(constraints: Iterable[ParamConstraint], point: Mapping[str, Any]) -> list[str]:
    """Those that the point breaks, as they were written."""
    return [constraint.text for constraint in constraints if not constraint.holds(point)]


def _parsed(text: object) -> ParamConstraint:
    if not isinstance(text, str) or not text.strip() or len(text) > TEXT_LIMIT:
        raise _Unreadable(f"a constraint must be a text of 1 to {TEXT_LIMIT} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _Unreadable("a constraint that cannot be read") from None
    if not isinstance(tree, ast.Compare):
        raise _Unreadable("a constraint must compare, with <=, <, >=, >, == or !=")
    for compare in tree.ops:
        if type(compare) not in _COMPARISONS:
            raise _Unreadable("a constraint must compare with <=, <, >=, >, == or !=")
    names = [name for part in (tree.left, *tree.comparators) for name in _names_in(part)]
    if not names:
        raise _Unreadable("a constraint names no parameter")
    return ParamConstraint(text.strip(), tuple(dict.fromkeys(names)), tree)


def _names_in(node: ast.expr) -> Iterator[str]:
    """The parameters in an expression. Raises _Unreadable for what the grammar does not have."""
    match node:
        case ast.Name(id=name):
            yield name
        case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                raise _Unreadable("a constraint may have finite numbers only")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            yield from _names_in(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            yield from _names_in(left)
            yield from _names_in(right)
        case _:
            raise _Unreadable(f"a constraint may have numbers, parameters and + - * / %, not {ast.unparse(node)!r}")


def _value(node: ast.expr, point: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return point[name]
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=op, operand=operand):
            value = _value(operand, point)
            return -value if isinstance(op, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, point), _value(right, point))
    raise AssertionError(f"not in the grammar: {node}")


def _problems_of(constraint: ParamConstraint, space: SearchSpace) -> Iterator[Problem]:
    numeric = [name for name, param in space.items() if _is_numeric(param)]
    for name in constraint.names:
        if name not in space:
            message = f"names {name}, which is no parameter"
            yield Problem(key="param_constraints", message=message, value=constraint.text, hint=nearest(name, numeric))
        elif name not in numeric:
            message = f"names {name}, which is not numeric"
            yield Problem(key="param_constraints", message=message, value=constraint.text, hint=nearest("", numeric))


def _is_numeric(param: Param) -> bool:
    if not isinstance(param, Categorical):
        return True
    return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in param.choices)
