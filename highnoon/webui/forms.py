"""The form of a new study: what a browser sends, as the table of a study file, and back into fields with messages.

Decides nothing about values: StudySpec does. What cannot be read as a number stays text, so that the message names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.param import UNSET, Categorical, Int, Param, SearchSpace, listed_form
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.space import KINDS, parse_param
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params, ParamValue
from highnoon.shared.views.formats import param
from highnoon.webui import form_values
from highnoon.webui.form_values import inline, number, shown, shown_choice, twice

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
_MORE = "more"
"""A field for the keys without one, as lines of a study file."""
FIELDS = (
    *_TEXT, *_WHOLE, *_REAL, *_OPTIONS.values(), "param_constraints", "warm_start", "objectives", "constraints", _MORE,
)  # fmt: skip
_SUBMITTED = ("bundle", "code", "git")
"""Keys that a submission writes: of a study like another one they are not the same."""
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
        rare = (*_REAL, "warm_start", _MORE, *(name for name in _WHOLE if name != "n_trials"))
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
    table: dict[str, Any] = form_values.lines(form.value(_MORE))
    table |= {name: form.value(name) for name in _TEXT if form.value(name)}
    table |= {name: number(form.value(name), int) for name in _WHOLE if form.value(name)}
    table |= {name: number(form.value(name), float) for name in _REAL if form.value(name)}
    if "early_stop" in table:
        table["early_stop"] = {"patience": table["early_stop"]}
    for key, sign in _PAIRS.items():
        if text := form.value(key):
            table[key] = dict(form_values.pairs(text, sign)) or text
    if form.value("warm_start"):
        table["warm_start"] = [name.strip() for name in form.value("warm_start").split(",")]
    for strategy, options in _OPTIONS.items():
        if form.value(options):
            table[strategy] = {"name": form.value(strategy), "options": form_values.options(form.value(options))}
    rows = [row for row in form.rows if any(row.get(part) for part in PARTS if part != "kind")]
    if rows:  # without any the objective defines its space as it runs, if it takes a trial
        table["search_space"] = {row["name"]: _domain(row) for row in rows}
    constraints = [line.strip() for line in form.value("param_constraints").splitlines() if line.strip()]
    return table | ({"param_constraints": constraints} if constraints else {})


def with_problems(form: StudyForm, problems: Sequence[Problem]) -> StudyForm:
    """The same fields, each with its messages; what names no field of the form comes first on the page."""
    errors: dict[str, str] = {}
    general: list[str] = []
    for problem in [*problems, *(problem for problem in mistakes(form) if problem not in problems)]:
        key = _field_of(problem.key, form)
        option = problem.key.partition(".options.")[2]  # several share a field
        text = f"{option} {problem.message}. {_for_a_form(problem.hint)}".strip()
        if key is None:
            general.append(str(problem))
        else:
            errors[key] = f"{errors[key]} {text}" if key in errors else text
    return replace(form, errors=errors, general=general)


def _for_a_form(hint: str) -> str:
    """The hint without what only a file has: tables, and the name of a key before its value, which is as in a field."""

    def in_field(found: re.Match[str]) -> str:
        value = form_values.lines(f"{found[1]} = {found[2]}").get(found[1])
        return found[2] if value is None else _in_field(found[1], value)

    written = re.sub(r"(?<=Write |ample )(\w+) = (.+?)(?=\.(?: |$)|, or )", in_field, hint)
    return written.replace(" under [sampler]", " as an option of the sampler")


def form_of(spec: Mapping[str, Any], *, name: str) -> StudyForm:
    """The fields that make a study like this one, under another name."""
    plain = (*_TEXT, *_WHOLE, *_REAL, *_PAIRS, "warm_start", "param_constraints")
    values = {key: _in_field(key, spec[key]) for key in plain if spec.get(key) is not None}
    for strategy, options in _OPTIONS.items():
        values[strategy] = spec[strategy]["name"]
        chosen = {key: value for key, value in spec[strategy].items() if key != "name"}
        values[options] = inline(chosen)[1:-1].strip()
    values[_MORE] = "\n".join(f"{key} = {inline(value)}" for key, value in _without_field(spec).items())
    rows = [_row(parameter, domain) for parameter, domain in (spec.get("search_space") or {}).items()]
    return StudyForm(values={**values, "name": name, "seed": ""}, rows=rows or DEFAULT_ROWS[1:])


def _in_field(key: str, value: Any) -> str:
    """A value of a study file as the field of its key has it."""
    match key:
        case "objectives" | "when":
            return ", ".join(f"{name} = {word}" for name, word in value.items())
        case "constraints":
            return ", ".join(f"{name} {bound}" for name, bound in value.items())
        case "warm_start":
            return ", ".join(value)
        case "param_constraints":
            return "\n".join(value)
        case "early_stop":
            return str(value["patience"])
        case _:
            return inline(value) if isinstance(value, list | dict) else shown(value)


def _without_field(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a study has set of the keys that have no field of their own."""
    keys = {key: field for key, field in StudySpec.model_fields.items() if not _has_field(key) and key in spec}
    chosen = {
        key: spec[key] for key, field in keys.items() if spec[key] != field.get_default(call_default_factory=True)
    }
    return {key: value for key, value in chosen.items() if key not in _SUBMITTED}


def _has_field(key: str) -> bool:
    return key == "search_space" or key in FIELDS


def mistakes(form: StudyForm) -> list[Problem]:
    """What only a form can have wrong: a table of a study file cannot hold a name twice, nor a key have two places."""
    hint = "Leave one of them out."
    rows = twice(row["name"] for row in form.rows)
    found = [Problem(key=f"search_space.{name}", message="is given twice") for name in rows]
    for key, sign in _PAIRS.items():
        names = twice(name for name, _ in form_values.pairs(form.value(key), sign))
        found += [Problem(key=key, message=f"{name} is given twice", hint=hint) for name in names]
    more = form_values.lines(form.value(_MORE))
    if form.value(_MORE) and not more:
        how = 'Write one key a line, for example isolation = "spawn", and no key twice.'
        found.append(Problem(key=_MORE, message="cannot be read as lines of a study file", hint=how))
    return found + [Problem(key=_MORE, message=f"{key} has a field of its own") for key in more if _has_field(key)]


def _is_row(key: str) -> bool:
    parts = key.split("-")
    return len(parts) == 3 and parts[0] == "space" and parts[1].isdecimal() and len(parts[1]) < 5 and parts[2] in PARTS


def _domain(row: Mapping[str, str]) -> object:
    """A list where it is enough, a table for a parameter with a condition or a default."""
    kind = row.get("kind", "")
    if kind == "categorical":
        values: dict[str, Any] = {"choices": form_values.choices(row.get("choices", ""))}
    else:
        wants = int if kind in ("int", "int_log") else float
        parts = ("low", "high", "step") if kind in ("int", "uniform") else ("low", "high")
        values = {part: number(row[part], wants) for part in parts if row.get(part)}
    more: dict[str, Any] = {"when": form_values.when(row["when"])} if row.get("when") else {}
    more |= {"default": form_values.choice(row["default"])} if row.get("default") else {}
    return {"type": kind, **values, **more} if more else [kind, *values.values()]


def _row(name: str, domain: object) -> dict[str, str]:
    """Of a domain as a stored specification has it."""
    known = parse_param(name, domain)
    kind, *rest = listed_form(known)
    row = {"name": name, "kind": kind}
    if kind == "categorical":
        row["choices"] = ", ".join(map(shown_choice, rest[0]))
    else:
        row |= dict(zip(("low", "high", "step"), map(shown, rest), strict=False))
    row["when"] = conditions(known)
    row["default"] = "" if known.default is UNSET else shown_choice(known.default)
    return {part: text for part, text in row.items() if text}


def conditions(param: Param) -> str:
    """When the parameter is used, as the form has it."""
    return "; ".join(f"{parent} = {', '.join(map(shown_choice, values))}" for parent, values in param.when.items())


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
    problems = [
        Problem(key=word, message="is not of the form name=value") for word, _, equals, _ in pairs if not equals
    ]
    repeated = twice(name for _, name, equals, _ in pairs if equals)
    problems += [Problem(key=name, message="is given twice", hint="Leave one of them out.") for name in repeated]
    if problems:
        raise InvalidInput("request", problems)
    return {name: cast(ParamValue, number(text, int)) for _, name, _, text in pairs}


def _in_domain(word: str, domain: Param | None) -> ParamValue:
    match domain:
        case Categorical(choices=choices):
            # Floats with all of their digits, as the page has them: 0.99999 and 0.999999 are both shown as 1.
            exact = {str(one) if isinstance(one, float) else param(one): one for one in choices}
            return exact.get(word, word)
        case Int():
            value = number(word, int)
        case _:
            value = number(word, float)
    return value if isinstance(value, int | float) else word
