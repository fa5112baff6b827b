"""The best configuration in the formats that people take away. Pure: a study's name and a trial in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import yaml

from highnoon.shared.domain.trial import ParamValue, Trial
from highnoon.shared.views.formats import finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a best configuration is written; `name` is the file's."""

    media_type: str
    name: str
    write: Callable[[str, Trial], str]


def as_json(study: str, best: Trial) -> str:
    """One object."""
    about = {"study": study, "trial": best.number, "value": best.value, "params": best.params}
    return json.dumps(finite(about), indent=2, ensure_ascii=False) + "\n"


def as_yaml(study: str, best: Trial) -> str:
    """As `as_json`; text that YAML would read as something else is quoted."""
    about = {"study": study, "trial": best.number, "value": best.value, "params": dict(best.params)}
    return str(yaml.safe_dump(about, sort_keys=False, allow_unicode=True))


def as_toml(study: str, best: Trial) -> str:
    """As `as_json`. TOML has no null: a parameter that is none is a comment."""
    lines = [f"study = {_toml(study)}", f"trial = {best.number}", f"value = {_toml(best.value)}", "", "[params]"]
    for name, value in best.params.items():
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
        lines.append(f"# {key} is none" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def as_python(study: str, best: Trial) -> str:
    """A snippet to go on with: a dict, and a model made from what the model accepts of it."""
    params = "".join(f"    {name!r}: {value!r},\n" for name, value in best.params.items())
    title = " ".join(study.split())
    return (
        f"# The best of study {title}: trial {best.number}, value {best.value!r}\n"
        "import highnoon as hn\n\n"
        f"best_params = {{\n{params}}}\n\n"
        'model = hn.create_model("highnoon-small", **best_params)\n'
        "trainer = hn.Trainer(model, **best_params)\n"
    )


def as_env(study: str, best: Trial) -> str:
    """Variables for a shell or a container, in capitals."""
    lines = [f"# trial {best.number} of study {' '.join(study.split())}"]
    for name, value in best.params.items():
        key = re.sub(r"[^A-Z0-9_]", "_", name.upper())
        lines.append(f"{'_' if key[:1].isdigit() else ''}{key}={_env(value)}")
    return "\n".join(lines) + "\n"


BEST: Mapping[str, Format] = {
    "json": Format(media_type="application/json", name="best.json", write=as_json),
    "yaml": Format(media_type="application/yaml", name="best.yaml", write=as_yaml),
    "toml": Format(media_type="application/toml", name="best.toml", write=as_toml),
    "python": Format(media_type="text/x-python", name="best.py", write=as_python),
    "env": Format(media_type="text/plain", name="best.env", write=as_env),
}
"""Formats of the best configuration."""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _env(value: ParamValue) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[A-Za-z0-9_.:/+-]*", text):
        return text
    return "'" + text.replace("'", "'\"'\"'").replace("\n", " ") + "'"
