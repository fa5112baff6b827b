"""The form of a new study: what a browser sends, as the table of a study file, and back into fields with messages.

Decides nothing about values: StudySpec does. What cannot be read as a number stays text, so that the message names it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.space import KINDS, UNSET, Categorical, Int, Param, SearchSpace, listed_form, parse_param
from highnoon.shared.domain.trial import Params, ParamValue
from highnoon.shared.views.formats import param

_WHOLE = (
    "n_trials", "seed", "max_attempts", "retry_errors", "param_budget", "max_failures_in_a_row", "early_stop",
    "priority", "max_running", "repeats",
)  # fmt: skip
_REAL = ("timeout", "trial_timeout", "stall_timeout", "target_value", "lambda_efficiency")
_TEXT = ("name", "objective", "code_dir", "direction", "resources", "sampler", "pruner", "prune_on")
_OPTIONS = {"sampler": "sampler_options", "pruner": "pruner_options"}
"""Fields for the options of a sampler and a pruner, written as in a study file: n_startup_trials = 20, group = true."""
_PAIRS = {"objectives": "=", "constraints": "(?=[<>=])"}
"""Fields of names and values, with commas between, and what stands between a name and its value."""
FIELDS = (*_TEXT, *_WHOLE, *_REAL, *_OPTIONS.values(), "param_constraints", "warm_start", "objectives", "constraints")
PARTS = ("name", "kind", "low", "high", "step", "choices", "when", "default")
"""The inputs of one row of the search space: `space-<row>-<part>`."""

DEFAULT_ROWS: Sequence[Mapping[str, str]] = (
    {"name": "learning_rate", "kind": "log_uniform", "low": "1e-5", "high": "1e-1"},
    {"name": "", "kind": "uniform"},
)
SAMPLERS, PRUNERS, DIRECTIONS = tuple(SamplerSpec.kinds), tuple(PrunerSpec.kinds), ("minimize", "maximize")
SPACE_KINDS = tuple(KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyForm:
    """The fields of the page; `errors` by the field's name, `general` for what belongs to none."""

    values: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, str]] = DEFAULT_ROWS
    errors: Mapping[str, str] = field(default_factory=dict)
    general: Sequence[str] = ()

    def value(self, name: str) -> str:
        return self.values.get(name, "")

    def error(self, name: str) -> str:
        """What is wrong with a field; empty when nothing is."""
        return self.errors.get(name, "")

    @property
    def has_errors(self) -> bool:
        """Whether anything is to be corrected."""
        return bool(self.errors or self.general)

    @property
    def more_is_used(self) -> bool:
        """Whether one of the less common fields is filled or wrong, so that they must be seen."""
        rare = (*_REAL, "warm_start", *(name for name in _WHOLE if name != "n_trials"))
        return any(self.value(name) or self.error(name) for name in rare)


def read_form(sent: Mapping[str, str]) -> StudyForm:
    """The form as it was sent; rows in their order, those that were taken out or left empty are gone."""
    numbers = sorted({int(key.split("-")[1]) for key in sent if _is_row(key)})
    rows = [{part: sent.get(f"space-{row}-{part}", "").strip() for part in PARTS} for row in numbers]
    rows = [row for row in rows if any(row[part] for part in PARTS if part != "kind")]
    return StudyForm(values={name: sent.get(name, "").strip() for name in FIELDS}, rows=rows or DEFAULT_ROWS[1:])


def with_row(form: StudyForm) -> StudyForm:
    """The same with an empty parameter at the end, for browsers without scripts."""
    return replace(form, rows=[*form.rows, DEFAULT_ROWS[1]])


def written(form: StudyForm) -> dict[str, Any]:
    """The study as a file would hold it; empty fields are left out."""
    table: dict[str, Any] = {name: form.value(name) for name in _TEXT if form.value(name)}
    table |= {name: _number(form.value(name), int) for name in _WHOLE if form.value(name)}
    table |= {name: _number(form.value(name), float) for name in _REAL if form.value(name)}
    if "early_stop" in table:
        table["early_stop"] = {"patience": table["early_stop"]}
    table |= {key: _pairs(form.value(key), sign) for key, sign in _PAIRS.items() if form.value(key)}
    if form.value("warm_start"):
        table["warm_start"] = [name.strip() for name in form.value("warm_start").split(",")]
    for strategy, options in _OPTIONS.items():
        if form.value(options):
            table[strategy] = {"name": form.value(strategy), "options": _table(form.value(options))}
    rows = [row for row in form.rows if any(row.get(part) for part in PARTS if part != "kind")]
    if rows:  # without any the objective defines its space as it runs, if it takes a trial
        table["search_space"] = {row["name"]: _domain(row) for row in rows}
    constraints = [line.strip() for line in form.value("param_constraints").splitlines() if line.strip()]
    return table | ({"param_constraints": constraints} if constraints else {})


def with_problems(form: StudyForm, problems: Sequence[Problem]) -> StudyForm:
    """The same fields, each with its messages; what names no field of the form comes first on the page."""
    errors: dict[str, str] = {}
    general: list[str] = []
    for problem in [*problems, *duplicates(form)]:
        key = _field_of(problem.key, form)
        text = f"{problem.message}. {_for_a_form(problem.hint)}".strip()
        if key is None:
            general.append(str(problem))
        else:
            errors[key] = f"{errors[key]} {text}" if key in errors else text
    return replace(form, errors=errors, general=general)


def _for_a_form(hint: str) -> str:
    """The hint without what only a file has: tables, and the name of a key before its value."""
    return re.sub(r"(Write (?:for example )?)\w+ = ", r"\1", hint).replace(
        " under [sampler]", " as an option of the sampler"
    )


def form_of(spec: Mapping[str, Any], *, name: str) -> StudyForm:
    """The fields that make a study like this one, under another name."""
    values = {key: _shown(spec[key]) for key in (*_TEXT, *_WHOLE, *_REAL) if spec.get(key) is not None}
    for strategy, options in _OPTIONS.items():
        values[strategy] = spec[strategy]["name"]
        chosen = {key: value for key, value in spec[strategy].items() if key != "name"}
        values[options] = _inline(chosen)[1:-1].strip()
    values["objectives"] = ", ".join(f"{name} = {way}" for name, way in (spec.get("objectives") or {}).items())
    values["constraints"] = ", ".join(f"{name} {bound}" for name, bound in spec.get("constraints", {}).items())
    values["warm_start"] = ", ".join(spec.get("warm_start", ()))
    if spec.get("early_stop"):
        values["early_stop"] = str(spec["early_stop"]["patience"])
    values["param_constraints"] = "\n".join(spec.get("param_constraints", ()))
    rows = [_row(parameter, domain) for parameter, domain in (spec.get("search_space") or {}).items()]
    return StudyForm(values={**values, "name": name, "seed": ""}, rows=rows)


def duplicates(form: StudyForm) -> list[Problem]:
    """Names that are in two rows: a table of a study file cannot hold them."""
    names = [row["name"] for row in form.rows]
    return [
        Problem(key=f"search_space.{name}", message="is there twice")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def _is_row(key: str) -> bool:
    parts = key.split("-")
    return len(parts) == 3 and parts[0] == "space" and parts[1].isdecimal() and len(parts[1]) < 5 and parts[2] in PARTS


def _number(text: str, kind: type[int] | type[float]) -> object:
    try:
        return kind(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def _table(text: str) -> object:
    """The options between the braces of an inline table; the text itself where it is none."""
    try:
        return tomllib.loads(f"options = {{{text}}}")["options"]
    except tomllib.TOMLDecodeError:
        return text


def _pairs(text: str, sign: str) -> object:
    """`loss = minimize, size = minimize` as a table; what is none stays text, so that the message shows it."""
    parts = [re.split(rf"\s*{sign}\s*", pair.strip(), maxsplit=1) for pair in text.split(",")]
    return dict(parts) if all(len(part) == 2 for part in parts) else text


def _inline(value: object) -> str:
    """A value of a study file on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {_inline(inner)}' for key, inner in value.items())}}}"
    return json.dumps(value)


def _domain(row: Mapping[str, str]) -> object:
    """A list where it is enough, a table for a parameter with a condition or a default."""
    kind = row.get("kind", "")
    if kind == "categorical":
        values: dict[str, Any] = {"choices": _choices(row.get("choices", ""))}
    else:
        wants = int if kind in ("int", "int_log") else float
        parts = ("low", "high", "step") if kind in ("int", "uniform") else ("low", "high")
        values = {part: _number(row[part], wants) for part in parts if row.get(part)}
    more: dict[str, Any] = {"when": _when(row["when"])} if row.get("when") else {}
    more |= {"default": _choice(row["default"])} if row.get("default") else {}
    return {"type": kind, **values, **more} if more else [kind, *values.values()]


def _when(text: str) -> object:
    """`optimizer = sgd, adam; depth = 2` as a table; what is none stays text, so that the message shows it."""
    conditions = [condition.partition("=") for condition in text.split(";") if condition.strip()]
    if not all(equals for _, equals, _ in conditions):
        return text
    return {name.strip(): _choices(values) for name, _, values in conditions}


def _choices(text: str) -> list[object]:
    return [_choice(word) for word in text.split(",") if word.strip()]


def _choice(word: str) -> object:
    """As in a study file: numbers, true, false and null are what they look like, all else is text."""
    try:
        value = json.loads(word.strip())
    except ValueError:
        return word.strip()
    return value if isinstance(value, str | int | float | bool) or value is None else word.strip()


def _row(name: str, domain: object) -> dict[str, str]:
    """Of a domain as a stored specification has it."""
    known = parse_param(name, domain)
    kind, *rest = listed_form(known)
    row = {"name": name, "kind": kind}
    if kind == "categorical":
        row["choices"] = ", ".join(map(_shown_choice, rest[0]))
    else:
        row |= dict(zip(("low", "high", "step"), map(_shown, rest), strict=False))
    row["when"] = conditions(known)
    row["default"] = "" if known.default is UNSET else _shown_choice(known.default)
    return {part: text for part, text in row.items() if text}


def conditions(param: Param) -> str:
    """When the parameter is used, as the form has it."""
    return "; ".join(f"{parent} = {', '.join(map(_shown_choice, values))}" for parent, values in param.when.items())


def _shown_choice(choice: object) -> str:
    """Text that looks like a number keeps its quotes, so that it is read back as text."""
    if isinstance(choice, str) and _choice(choice) == choice and "," not in choice:
        return choice
    return json.dumps(choice, ensure_ascii=False)


def _shown(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _field_of(key: str, form: StudyForm) -> str | None:
    first, _, rest = key.partition(".")
    if first == "search_space":
        rows = [str(index) for index, row in enumerate(form.rows) if row["name"] == rest]
        return f"space-{rows[-1]}" if rows else "search_space"
    if rest not in ("", "name"):
        first = _OPTIONS.get(first, first)
    return first if first in FIELDS else None


def point(sent: Mapping[str, str], space: SearchSpace) -> Params:
    """The parameters of one trial as `param-<name>` fields hold them, in their domain's types; empty ones are open."""
    words = {key.removeprefix("param-"): word.strip() for key, word in sent.items() if key.startswith("param-")}
    return {name: _in_domain(word, space.get(name)) for name, word in words.items() if word}


def settings(sent: Mapping[str, str]) -> dict[str, ParamValue]:
    """What the field `settings` sets, such as `epochs=20 warmup=0`. Raises InvalidInput with every mistake."""
    pairs = [(word, *word.partition("=")) for word in sent.get("settings", "").split()]
    wrong = [word for word, _, equals, _ in pairs if not equals]
    if wrong:
        problems = [Problem(key=word, message="is not of the form name=value") for word in wrong]
        raise InvalidInput("request", problems)
    return {name: cast(ParamValue, _number(text, int)) for _, name, _, text in pairs}


def _in_domain(word: str, domain: Param | None) -> ParamValue:
    match domain:
        case Categorical(choices=choices):
            return next((choice for choice in choices if param(choice) == word), word)
        case Int():
            number = _number(word, int)
        case _:
            number = _number(word, float)
    return number if isinstance(number, int | float) else word
