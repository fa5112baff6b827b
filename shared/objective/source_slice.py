"""The part of a module's source that one function of it needs: the statements that bind what it uses, and theirs.

For functions of notebooks and scripts, which workers cannot import: their source travels, never a pickle. Text in, text
out; runs nothing. Left out is what binds nothing (calls for their effect, magics), what stands below
`if __name__ == "__main__":`, and earlier bindings that a later one replaces; a call that may change what travels is
left out with a warning. Settings stay, such as `os.environ[...] = ...`, and imports from `__future__`.
"""

from __future__ import annotations

import ast
import builtins
import logging
import symtable
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from highnoon.shared.domain.errors import InvalidInput, Problem, did_you_mean
from highnoon.shared.objective.source import environment_set_by, executed_parts

_log = logging.getLogger("highnoon")
_CHANGES_CONTAINER = frozenset(
    (
        *("add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft", "insert"),
        *("intersection_update", "move_to_end", "pop", "popitem", "popleft", "remove", "reverse", "rotate"),
        *("setdefault", "sort", "subtract", "symmetric_difference_update", "update"),
    )
)
"""Methods of Python's own containers: others, such as `df.head()`, mostly change nothing."""
_LONGEST_CALL = 80
"""Of a warning."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Statement:
    """One statement of the top level: the names that it binds, changes and uses."""

    node: ast.stmt
    text: str
    binds: frozenset[str]
    changes: frozenset[str]
    uses: frozenset[str]

    @property
    def has_star(self) -> bool:
        """`from module import *`, which may bind any name."""
        return isinstance(self.node, ast.ImportFrom) and self.node.names[0].name == "*"

    @property
    def is_of_future(self) -> bool:
        """Whether it is `from __future__ import ...`, which changes how all others are compiled."""
        return isinstance(self.node, ast.ImportFrom) and self.node.module == "__future__"

    @property
    def sets_environment(self) -> bool:
        """Whether it sets or deletes variables, which libraries read when they are imported."""
        return any(True for _ in environment_set_by(self.node))

    def replaces(self, name: str) -> bool:
        """True when no earlier binding of the name matters any more."""
        if isinstance(self.node, ast.Import):
            # Without one, `import package.data` and `import package` bind the same module, which keeps its parts.
            return any(alias.asname == name for alias in self.node.names)
        plain = ast.FunctionDef | ast.ClassDef | ast.ImportFrom | ast.Assign | ast.AnnAssign
        return isinstance(self.node, plain) and name in self.binds and name not in self.uses


def source_needed_by(function: str, source: str, *, where: str) -> str:
    """A module with the function `function` of `source`, and all that it uses of it.

    Raises InvalidInput with every name that it uses and that no statement of the top level binds.
    """
    # Python counts lines by these three ends only; `splitlines` has more, such as form feeds, and would be off by one.
    lines = source.replace("\r\n", "\n").replace("\r", "\n")
    statements = list(_statements(lines, where))
    chosen: set[int] = set()
    problems: list[Problem] = []
    wanted, seen = [function], {function}
    always = [index for index, one in enumerate(statements) if one.is_of_future or one.sets_environment]
    wanted += [name for index in always for name in _chosen(index, statements, chosen)]
    while wanted:
        name = wanted.pop()
        seen.add(name)
        found = list(_binding(name, statements))
        if not found and not hasattr(builtins, name) and not name.startswith("__"):
            found = [index for index, statement in enumerate(statements) if statement.has_star]
            if not found:
                problems.append(_not_bound(name, function, statements, where))
        for index in found:
            wanted += [used for used in _chosen(index, statements, chosen) if used not in seen]
    if problems:
        raise InvalidInput("submit()", problems)
    for warning in _dropped_calls(function, statements, chosen, seen):
        _log.warning("submit(): %s", warning)
    in_order = sorted(chosen, key=lambda index: (not statements[index].is_of_future, index))
    return "\n\n".join(statements[index].text for index in in_order) + "\n"


def _statements(source: str, where: str) -> Iterator[_Statement]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise InvalidInput.of(
            "submit()", "objective", f"{where} has a syntax error in line {error.lineno}: {error.msg}"
        ) from None
    for node in tree.body:
        if not _is_main_block(node):
            with suppress(SyntaxError):  # what only a notebook takes, such as await at the top level
                yield _statement(node, source)


def _is_main_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}


def _statement(node: ast.stmt, source: str) -> _Statement:
    text = _text(node, source)
    table = symtable.symtable(text, "source", "exec")
    binds: set[str] = set()
    uses: set[str] = set()
    for symbol in table.get_symbols():
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            binds.add(symbol.get_name())
        if symbol.is_referenced():
            uses.add(symbol.get_name())
    for inner in _inner(table):
        for symbol in inner.get_symbols():
            if symbol.is_global():
                uses.add(symbol.get_name())
    changes = {root for part in _stored(node) if (root := _root(part)) is not None}
    uses -= _bound_for_itself(node) | {"*"}
    return _Statement(node=node, text=text, binds=frozenset(binds), changes=frozenset(changes), uses=frozenset(uses))


def _text(node: ast.stmt, source: str) -> str:
    """As it was written, with its decorators; from the syntax tree where lines are shared with another statement."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    text = "\n".join(source.split("\n")[first - 1 : node.end_lineno])
    try:
        alone = ast.parse(text).body
    except SyntaxError:
        return ast.unparse(node)
    is_whole = len(alone) == 1 and ast.dump(alone[0]) == ast.dump(node)
    return text if is_whole else ast.unparse(node)


def _inner(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _inner(child)


def _stored(node: ast.AST) -> list[ast.Attribute | ast.Subscript]:
    """The parts of values that it assigns or deletes, also in loops and blocks."""
    parts = (part for part in executed_parts(node) if isinstance(part, ast.Attribute | ast.Subscript))
    return [part for part in parts if not isinstance(part.ctx, ast.Load)]


def _bound_for_itself(node: ast.AST) -> set[str]:
    """The names of loops and `with` blocks that it reads within them only: other statements that bind them decide
    nothing here."""
    within: dict[str, set[ast.AST]] = {}
    for part in executed_parts(node):
        match part:
            case ast.For(target=target, body=body) | ast.AsyncFor(target=target, body=body):
                targets = [target]
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                targets = [item.optional_vars for item in items if item.optional_vars is not None]
            case _:
                continue
        inside = {one for statement in body for one in ast.walk(statement)}
        for name in (one for target in targets for one in ast.walk(target)):
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                within.setdefault(name.id, set()).update(inside)
    read = [one for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)]
    return within.keys() - {name.id for name in read if name not in within.get(name.id, ())}


def _root(part: ast.expr) -> str | None:
    """`table` in `table["a"].b`."""
    while isinstance(part, ast.Subscript | ast.Attribute):
        part = part.value
    return part.id if isinstance(part, ast.Name) else None


def _chosen(index: int, statements: list[_Statement], chosen: set[int]) -> list[str]:
    """Takes a statement; the names that it needs in turn."""
    if index in chosen:
        return []
    chosen.add(index)
    return sorted(statements[index].uses)


def _binding(name: str, statements: list[_Statement]) -> Iterator[int]:
    """The statements that decide a name's value: back from the last one to one that replaces all before it."""
    for index in range(len(statements) - 1, -1, -1):
        statement = statements[index]
        if name in statement.binds or name in statement.changes:
            yield index
        if statement.replaces(name):
            return


def _dropped_calls(function: str, statements: list[_Statement], chosen: set[int], used: set[str]) -> list[str]:
    """A sentence for each call that changes a container that travels and is no module, where the call does not."""
    since: dict[str, int] = {}
    for index in sorted(chosen):
        if not isinstance(statements[index].node, ast.Import | ast.ImportFrom):
            for name in statements[index].binds & used:
                since.setdefault(name, index)
    sentences = []
    for index in sorted(set(range(len(statements))) - chosen):
        for part in executed_parts(statements[index].node):
            match part:
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=value, attr=method)) as call):
                    root = _root(value)
                    if root is not None and method in _CHANGES_CONTAINER and since.get(root, index) < index:
                        text = ast.unparse(call)
                        shown = text if len(text) <= _LONGEST_CALL else f"{text[:_LONGEST_CALL]}..."
                        sentences.append(
                            f"{shown} is not sent, and may change {root}, which {function} needs: "
                            f"assign to {root} instead, or call it inside of the function"
                        )
    return list(dict.fromkeys(sentences))


def _not_bound(name: str, function: str, statements: list[_Statement], where: str) -> Problem:
    known = {bound for statement in statements for bound in statement.binds}
    message = f"{function} needs {name}, which no statement of {where} binds"
    hint = "Define it at the top level, outside of `if __name__ == '__main__':`, or inside of the function."
    return Problem(key="objective", message=message, hint=did_you_mean(name, known) or hint)
