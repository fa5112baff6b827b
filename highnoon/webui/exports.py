"""The best configuration and all trials, in the formats that people take away. Pure: text in, text out."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from highnoon.webui.library import LOSS, Study, cause_of, ending_of
from highnoon.webui.plain import dumps, finite
from shared.ledger.overview import AttemptSpan
from shared.trial import ParamValue, Trial

_CHUNK = 1000
_CSV_HEAD = ("number", "state", "ending", "cause", "value", "loss", "started_at", "ended_at", "duration_s", "host")
_PEAK = "peak_rss_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a best configuration is written; `name` is the file's."""

    media_type: str
    name: str
    write: Callable[[Study, Trial], str]


def as_json(study: Study, best: Trial) -> str:
    """One object."""
    about = {"study": study.name, "trial": best.number, "value": best.value, "params": best.params}
    return json.dumps(finite(about), indent=2, ensure_ascii=False) + "\n"


def as_yaml(study: Study, best: Trial) -> str:
    """As `as_json`; text that YAML would read as something else is quoted."""
    about = {"study": study.name, "trial": best.number, "value": best.value, "params": dict(best.params)}
    return str(yaml.safe_dump(about, sort_keys=False, allow_unicode=True))


def as_toml(study: Study, best: Trial) -> str:
    """As `as_json`. TOML has no null: a parameter that is none is a comment."""
    lines = [f"study = {_toml(study.name)}", f"trial = {best.number}", f"value = {_toml(best.value)}", "", "[params]"]
    for name, value in best.params.items():
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
        lines.append(f"# {key} is none" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def as_python(study: Study, best: Trial) -> str:
    """A snippet to go on with: a dict, and a model made from what the model knows of it."""
    params = "".join(f"    {name!r}: {value!r},\n" for name, value in best.params.items())
    title = " ".join(study.name.split())
    return (
        f"# The best of study {title}: trial {best.number}, value {best.value!r}\n"
        "import highnoon as hn\n\n"
        f"best_params = {{\n{params}}}\n\n"
        'model = hn.create_model("highnoon-small", **best_params)\n'
        "trainer = hn.Trainer(model, **best_params)\n"
    )


def as_env(study: Study, best: Trial) -> str:
    """Variables for a shell or a container, in capitals."""
    lines = [f"# trial {best.number} of study {' '.join(study.name.split())}"]
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

TRIALS = ("csv", "jsonl")
"""Formats of all trials."""


def trials_csv(trials: Sequence[Trial], names: Sequence[str], spans: Mapping[int, AttemptSpan]) -> Iterator[str]:
    """A row per trial; text that a spreadsheet would run as a formula is quoted."""
    yield _csv_rows([[*_CSV_HEAD, _PEAK, *(_harmless(f"params.{name}") for name in names)]])
    for start in range(0, len(trials), _CHUNK):
        yield _csv_rows([_csv_row(trial, names, spans) for trial in trials[start : start + _CHUNK]])


def trials_jsonl(trials: Sequence[Trial], spans: Mapping[int, AttemptSpan]) -> Iterator[str]:
    """An object per line."""
    for start in range(0, len(trials), _CHUNK):
        chunk = trials[start : start + _CHUNK]
        yield "".join(dumps(trial_object(trial, spans.get(trial.number))) + "\n" for trial in chunk)


def trial_object(trial: Trial, span: AttemptSpan | None = None) -> dict[str, Any]:
    """A trial for programs."""
    return {
        "number": trial.number,
        "state": str(trial.state),
        "ending": ending_of(trial),
        "cause": cause_of(trial) or None,
        "value": trial.value,
        "loss": trial.attrs.get(LOSS, trial.value),
        "params": trial.params,
        "reports": [{"step": report.step, "value": report.value} for report in trial.reports],
        "started_at": trial.started_at.isoformat() if trial.started_at else None,
        "ended_at": trial.ended_at.isoformat() if trial.ended_at else None,
        "duration_s": trial.duration_s,
        "host": span.host if span else None,
        _PEAK: span.peak_rss_bytes if span else None,
    }


def _csv_row(trial: Trial, names: Sequence[str], spans: Mapping[int, AttemptSpan]) -> list[object]:
    span = spans.get(trial.number)
    row = [
        trial.number,
        str(trial.state),
        ending_of(trial),
        _harmless(cause_of(trial)),
        trial.value,
        trial.attrs.get(LOSS, trial.value),
        trial.started_at.isoformat() if trial.started_at else None,
        trial.ended_at.isoformat() if trial.ended_at else None,
        trial.duration_s,
        _harmless(span.host) if span else None,
        span.peak_rss_bytes if span else None,
    ]
    return [*row, *[_harmless(trial.params.get(name)) for name in names]]


def _csv_rows(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _harmless(cell: object) -> object:
    if isinstance(cell, bool):
        return str(cell).lower()
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


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
