"""A Python file read, never run: does it define a function that can be called with one argument?

Owns what can be seen in a syntax tree. What cannot be seen (imports, decorators, computed names) counts as right:
a false refusal would be worse than an error in the first trial.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from highnoon.shared.domain.errors import did_you_mean
from highnoon.shared.domain.trial_environment import read_at_import


class Flaw(NamedTuple):
    """Why the function cannot work, and what would."""

    message: str
    hint: str = ""


class _Binding(NamedTuple):
    """A name that the module has once it is imported; `node` is None where nothing can be said of its value."""

    name: str
    node: ast.AST | None


def flaw_in(path: Path, function: str, *, as_script: bool = False) -> Flaw | None:
    """What keeps `function` in this file from being called with one argument, or None; never raises.

    `as_script`: the file is imported by its path, so that it belongs to no package.
    """
    try:
        tree = _tree(path)
        bindings = list(_bindings(tree.body))
    except SyntaxError as error:
        return Flaw(message=f"{path.name} has a syntax error in line {error.lineno}: {error.msg}")
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return Flaw(message=f"{path.name} cannot be read ({error})")
    if as_script and (line := _relative_import(tree)):
        hint = f"Name the module instead, such as {path.parent.name}.{path.stem}:{function}, from the folder above it."
        return Flaw(message=f"{path.name} has a relative import in line {line}, but a file has no package", hint=hint)
    flaws = [_flaw_of(binding, path) for binding in bindings if binding.name == function]
    if not flaws:
        return None if _may_define_more(bindings) else _not_defined(path, function, bindings)
    # A name may be bound several times, as in try/except around an import: one that works is enough.
    return None if None in flaws else flaws[-1]


def first_argument(path: Path, function: str) -> tuple[str, str] | None:
    """Name and annotation of the function's first argument, as they are written; None where they cannot be seen."""
    try:
        found = [binding.node for binding in _bindings(_tree(path).body) if binding.name == function]
    except (SyntaxError, OSError, ValueError, RecursionError, MemoryError):
        return None
    match found:
        case [ast.FunctionDef(decorator_list=[], args=arguments) | ast.Lambda(args=arguments)]:
            for argument in (*arguments.posonlyargs, *arguments.args):
                return argument.arg, "" if argument.annotation is None else ast.unparse(argument.annotation)
    return None


def import_settings_in(path: Path) -> tuple[str, ...]:
    """The variables that the file's top level sets in `os.environ`, or deletes by `pop`, and that libraries read when
    they are imported.

    A forked trial has inherited these libraries, and would ignore them. Never raises.
    """
    try:
        statements = _tree(path).body
    except (SyntaxError, OSError, ValueError, RecursionError, MemoryError):
        return ()
    simple = (one for one in statements if isinstance(one, ast.Expr | ast.Assign | ast.AnnAssign | ast.AugAssign))
    return read_at_import(name for statement in simple for name in environment_set_by(statement) if name)


def environment_set_by(statement: ast.stmt) -> Iterator[str | None]:
    """The variables that a statement sets in `os.environ`, or deletes; None where only its run shows which.

    Of `os.environ["X"] = ...`, `os.environ.setdefault("X", ...)`, `.pop("X")`, `.update({"X": ...}, Y=...)` and
    `os.environ |= {"X": ...}`, wherever in it they are.
    """
    for part in executed_parts(statement):
        match part:
            case ast.Subscript(value=where, slice=key, ctx=ast.Store() | ast.Del()):
                names = [_text(key)]
            case ast.AugAssign(target=where, op=ast.BitOr(), value=value):
                names = _keys_of(value)
            case ast.Call(func=ast.Attribute(value=where, attr="setdefault" | "pop"), args=[key, *_]):
                names = [_text(key)]
            case ast.Call(func=ast.Attribute(value=where, attr="update"), args=args, keywords=keywords):
                names = [name for arg in args for name in _keys_of(arg)] + [keyword.arg for keyword in keywords]
            case _:
                continue
        if _is_environment(where):
            yield from names


def executed_parts(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, but not what functions do later."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from executed_parts(child)


def _keys_of(node: ast.expr) -> list[str | None]:
    return [_text(key) for key in node.keys] if isinstance(node, ast.Dict) else [None]


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _is_environment(node: ast.expr) -> bool:
    return ast.unparse(node) in ("os.environ", "environ")


def _tree(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as invalid escapes in the user's strings
        return ast.parse(path.read_bytes(), filename=str(path))


def _relative_import(tree: ast.Module) -> int | None:
    """The line of the first one that the import of this file surely executes."""
    lines = [node.lineno for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    return lines[0] if lines else None


def _bindings(statements: Iterable[ast.AST]) -> Iterator[_Binding]:
    """Every name bound at the top level, also inside if, try, with and loops."""
    for statement in statements:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield _Binding(statement.name, statement)
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    yield _Binding(alias.asname or alias.name.partition(".")[0], None)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield _Binding(name, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                if value is not None:
                    yield _Binding(name, value)
            case ast.Name(id=name, ctx=ast.Store()):
                yield _Binding(name, None)
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                continue  # their names are their own
            case _:
                yield from _bindings(ast.iter_child_nodes(statement))


def _may_define_more(bindings: Iterable[_Binding]) -> bool:
    return any(binding.name in ("*", "__getattr__") for binding in bindings)


def _not_defined(path: Path, function: str, bindings: Iterable[_Binding]) -> Flaw:
    names = [binding.name for binding in bindings]
    functions = [binding.name for binding in bindings if isinstance(binding.node, ast.FunctionDef)]
    listed = f"It defines {', '.join(functions[:8])}." if functions else "It defines no function."
    return Flaw(message=f"{path.name} has no {function}", hint=did_you_mean(function, names) or listed)


def _flaw_of(binding: _Binding, path: Path) -> Flaw | None:
    what = f"{binding.name} in {path.name}"
    match binding.node:
        case ast.FunctionDef(decorator_list=[], args=arguments) | ast.Lambda(args=arguments):
            return _flaw_in_arguments(what, binding.name, arguments)
        case ast.AsyncFunctionDef(decorator_list=[]):
            return Flaw(message=f"{what} is an async function", hint=f"Write def {binding.name}(params) without async.")
        case ast.Constant() | ast.JoinedStr() | ast.List() | ast.Tuple() | ast.Dict() | ast.Set():
            return Flaw(message=f"{what} is not callable", hint="Name a function that takes the dict of parameters.")
        case _:
            return None


def _flaw_in_arguments(what: str, name: str, arguments: ast.arguments) -> Flaw | None:
    positional = [*arguments.posonlyargs, *arguments.args]
    needed = len(positional) - len(arguments.defaults)
    needed += sum(default is None for default in arguments.kw_defaults)
    hint = f"It is called as {name}(params), with the dict of parameters."
    if not positional and arguments.vararg is None:
        return Flaw(message=f"{what} takes no positional argument", hint=hint)
    if needed > 1:
        return Flaw(message=f"{what} needs {needed} arguments", hint=hint)
    return None
