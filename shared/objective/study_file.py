"""Study files: TOML, JSON or YAML in; a validated study out, or every mistake with its line and key.

Owns the formats. `study` judges the keys; the objective is looked for before anything is started, and not run.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from highnoon.shared.domain.correction_hints import cut_short
from highnoon.shared.domain.errors import ABSENT, InvalidInput, Problem, nearest
from highnoon.shared.domain.kept_constraints import kept_constraints_problems
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.study import StudySpec, validate
from highnoon.shared.domain.trial_environment import secrets_in
from highnoon.shared.objective.reference import check, takes_no_trial

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_log = logging.getLogger("highnoon")


def read_table(path: Path) -> dict[str, Any]:
    """The table that a study file holds. Raises InvalidInput: no such file, unknown format, not UTF-8, bad syntax."""
    try:
        return _table(_parsed(_text(path), _parser(path)))
    except _Unreadable as unreadable:
        raise InvalidInput(str(path), [unreadable.problem]) from None


class _Unreadable(Exception):
    def __init__(self, message: str, *, key: str = "file", value: object = ABSENT, hint: str = "") -> None:
        super().__init__(message)
        self.problem = Problem(key=key, message=message, value=value, hint=hint)


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise _Unreadable("is a folder", hint=_study_files(path, ""))
        if not path.exists():
            missing = "does not exist" if path.parent.is_dir() else "does not exist, nor does its folder"
            raise _Unreadable(missing, hint=_study_files(path.parent, path.name))
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _Unreadable(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise _Unreadable(f"is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None


def _study_files(folder: Path, name: str) -> str:
    """The hint for a name that is no file: the study file nearest to it, or all that are there."""
    try:
        return nearest(name, sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _PARSERS))
    except OSError:
        return ""


def _parser(path: Path) -> Callable[[str], object]:
    suffix = path.suffix.lower()
    if suffix not in _PARSERS:
        raise _Unreadable("has no known ending", value=path.suffix, hint=f"Known: {', '.join(_PARSERS)}.")
    return _PARSERS[suffix]


def _parsed(text: str, parse: Callable[[str], object]) -> object:
    try:
        return parse(text) if text.strip() else None
    except RecursionError:
        raise _Unreadable("is nested too deeply") from None
    except ValueError as error:  # what the parsers say without a place, such as an integer of 5,000 digits
        raise _Unreadable(f"cannot be read ({str(error).partition(';')[0]})") from None


def _table(parsed: object) -> dict[str, Any]:
    if parsed is None:
        raise _Unreadable(
            "is empty", hint="A study needs name and objective, and a search_space unless the objective takes a trial."
        )
    if not isinstance(parsed, dict):
        raise _Unreadable("must hold a table of keys and values", value=parsed)
    return parsed


def _toml(text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        numbers = [int(number) for number in re.findall(r"\d+", place)]
        line, column = numbers if len(numbers) == 2 else _place(text, len(text))
        written = text.split("\n")[line - 1]
        if message in ("Cannot overwrite a value", "Cannot mutate immutable namespace") or message.endswith("twice"):
            raise _syntax(f"{_key_in(written)} is given twice", text, line, column, "Leave one of them out.") from None
        hint = _right_value(written[column - 1 :]) if message == "Invalid value" else ""
        raise _syntax(message, text, line, column, hint) from None


def _key_in(line: str) -> str:
    return line.strip() if line.lstrip().startswith("[") else line.partition("=")[0].strip()


def _right_value(written: str) -> str:
    """What to write in TOML where no value of TOML begins."""
    word = re.split(r"[^A-Za-z]", written.strip(), maxsplit=1)[0]
    if word.lower() in ("none", "null", "nil"):
        return 'TOML has no null: leave the key out, use a text such as "none", or write the study in YAML or JSON.'
    if word in ("True", "False"):
        return f"Write {word.lower()}."
    return "Text needs quotes, a list square brackets."


def _json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        before, after = text[: error.pos].rstrip(), text[error.pos :].lstrip()
        hint = "JSON wants double quotes." if after.startswith("'") else ""
        if before.endswith(",") and after[:1] in ("}", "]"):
            hint = "Leave out the last comma."
        raise _syntax(error.msg, text, error.lineno, error.colno, hint) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The default would silently let the last of two equal keys win."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unreadable("is given twice", key=twice, hint="Leave one of them out.")
    return table


_MOST_ALIASES = 20


def _yaml(text: str) -> object:
    try:
        return yaml.load(text, Loader=_Yaml)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = error.problem or error.context or "cannot be read"
        if "another document" in problem:
            raise _syntax("a second document begins here", text, *place, "A file holds one study.") from None
        raise _syntax(problem, text, *place) from None
    except yaml.reader.ReaderError as error:
        raise _syntax(error.reason, text, *_place(text, error.position)) from None
    except (AttributeError, LookupError, TypeError):  # PyYAML's, for a tag such as !!bool before another value
        raise _Unreadable("holds a value that does not fit its tag", hint="Leave out tags (!!).") from None


class _Yaml(yaml.SafeLoader):
    """The scalars of YAML 1.2: PyYAML would read 1e-5 as text, `off` as false and 1:30 as 90."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Each alias of a list of aliases multiplies what a message would show: a kilobyte is a billion values."""
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > _MOST_ALIASES:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, f"has more than {_MOST_ALIASES} aliases", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Yaml.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


_PARSERS: dict[str, Callable[[str], object]] = {".toml": _toml, ".json": _json, ".yaml": _yaml, ".yml": _yaml}


def _place(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _syntax(message: str, text: str, line: int, column: int, hint: str = "") -> _Unreadable:
    shown = text.split("\n")[line - 1].strip() or ABSENT
    return _Unreadable(message[:1].lower() + message[1:], key=f"line {line}, column {column}", value=shown, hint=hint)


def load_study_file(path: Path, overrides: Mapping[str, object] | None = None) -> StudySpec:
    """The study in a TOML, JSON or YAML file; `overrides` win over its keys. Raises InvalidInput with all problems."""
    written = {**read_table(path), **(overrides or {})}
    return build_spec(written, source=str(path), code_dir=path.absolute().parent.resolve())


def build_spec(data: Mapping[str, Any], source: str, code_dir: Path | None = None) -> StudySpec:
    """The study that `data` describes; relative paths start from `code_dir`. Raises InvalidInput with all problems."""
    if not isinstance(data, Mapping):
        raise InvalidInput.of(source, "study", "must be a table of keys and values", value=data)
    written = _with_code_dir(data, code_dir)
    spec, problems = validate(written)
    problems += _objective_problems(written)
    if spec is not None:
        problems += kept_constraints_problems(spec)
    if spec is None or problems:
        raise InvalidInput(source, problems)
    for line in cut_short(data.get("search_space") or {}, spec.search_space):
        _log.warning("%s: %s", source, line)
    if warning := secrets_in(spec.environment):
        _log.warning("%s: %s", source, warning)
    return spec


def _with_code_dir(data: Mapping[str, Any], code_dir: Path | None) -> Mapping[str, Any]:
    """`code_dir` as the study may name it itself, relative to where it is written."""
    named = data.get("code_dir", ".")
    if code_dir is None or not isinstance(named, str):
        return data
    return {**data, "code_dir": str((code_dir / named).absolute())}


def _objective_problems(written: Mapping[str, Any]) -> list[Problem]:
    """Checked also where other keys are wrong, so that all problems are reported at once."""
    objective, code_dir = written.get("objective"), written.get("code_dir")
    missing = [] if written.get("search_space") is not None else [_MISSING_SPACE]
    if not isinstance(objective, str) or not isinstance(code_dir, str | None):
        return missing
    folder = Path(code_dir) if code_dir else None
    plugins = _plugin_problems(written, folder)
    try:
        ref = ObjectiveRef.parse(objective)
    except InvalidInput:
        return [*plugins, *missing]  # validation has said what is wrong with the objective
    problem = check(ref, folder)
    if problem:
        return [problem, *plugins, *missing]
    return [*plugins, *missing] if takes_no_trial(ref, folder) else plugins


def _plugin_problems(written: Mapping[str, Any], folder: Path | None) -> list[Problem]:
    """Of a sampler or a pruner that is a class of the study's own code."""
    checked = {kind: check(ref, folder) for kind, ref in plugins_in(written).items()}
    return [replace(problem, key=kind) for kind, problem in checked.items() if problem is not None]


def plugins_in(written: Mapping[str, Any]) -> dict[str, ObjectiveRef]:
    """Sampler and pruner of a study that is not validated yet, where they are classes; wrong names are left out."""
    found = {}
    for kind in ("sampler", "pruner"):
        given = written.get(kind)
        name = given.get("name") if isinstance(given, Mapping) else given
        if isinstance(name, str) and ":" in name:
            with suppress(InvalidInput):
                found[kind] = ObjectiveRef.parse(name)
    return found


_MISSING_SPACE = Problem(
    key="search_space",
    message="is missing",
    hint='Write for example search_space = {learning_rate = ["log_uniform", 1e-5, 1e-3]}, or name the objective\'s '
    "argument trial and suggest parameters as in Optuna.",
)
