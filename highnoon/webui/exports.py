"""All trials in the formats that people take away; those of the best are `shared.views.best_config`. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.overview import AttemptSpan, Place
from highnoon.shared.views.best_config import BEST as BEST
from highnoon.webui.plain import dumps
from highnoon.webui.snapshot import cause_of, ending_of

_CSV_HEAD = ("number", "state", "ending", "cause", "value", "loss", "started_at", "ended_at", "duration_s", "host")
_PEAK = "peak_rss_bytes"


TRIALS = ("csv", "jsonl", "parquet")
"""Formats of all trials."""


def csv_head(names: Sequence[str]) -> str:
    """The names of the columns."""
    return _csv([[*_CSV_HEAD, _PEAK, *(_harmless(f"params.{name}") for name in names)]])


def csv_rows(trials: Sequence[Trial], names: Sequence[str], places: Mapping[int, Place]) -> str:
    """A row per trial; text that a spreadsheet would run as a formula is quoted."""
    return _csv([list(map(_harmless, _row(trial, names, places))) for trial in trials])


def json_lines(trials: Sequence[Trial], places: Mapping[int, Place]) -> str:
    """An object per line."""
    return "".join(dumps(trial_object(trial, places.get(trial.number))) + "\n" for trial in trials)


def parquet(trials: Sequence[Trial], names: Sequence[str], places: Mapping[int, Place]) -> bytes:
    """The columns of the CSV with their types. Raises InvalidInput where pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        hint = "Install pyarrow where the dashboard runs: pip install 'highnoon-hpo[parquet]'."
        problem = Problem(key="format", message="needs the package pyarrow", value="parquet", hint=hint)
        raise InvalidInput("request", [problem]) from None
    rows = [_row(trial, names, places) for trial in trials]
    titles = [*_CSV_HEAD, _PEAK, *(f"params.{name}" for name in names)]
    columns = {title: _column([row[place] for row in rows]) for place, title in enumerate(titles)}
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def trial_object(trial: Trial, span: AttemptSpan | Place | None = None) -> dict[str, Any]:
    """A trial for programs."""
    return {
        "number": trial.number,
        "state": str(trial.state),
        "ending": ending_of(trial),
        "cause": cause_of(trial) or None,
        "value": trial.value,
        "loss": trial.loss,
        "params_count": trial.params_count,
        "params": trial.params,
        "reports": [{"step": report.step, "value": report.value} for report in trial.reports],
        "started_at": trial.started_at.isoformat() if trial.started_at else None,
        "ended_at": trial.ended_at.isoformat() if trial.ended_at else None,
        "duration_s": trial.duration_s,
        "host": span.host if span else None,
        _PEAK: span.peak_rss_bytes if span else None,
    }


def _row(trial: Trial, names: Sequence[str], places: Mapping[int, Place]) -> list[object]:
    place = places.get(trial.number)
    return [
        trial.number,
        str(trial.state),
        ending_of(trial),
        cause_of(trial),
        trial.value,
        trial.loss,
        trial.started_at.isoformat() if trial.started_at else None,
        trial.ended_at.isoformat() if trial.ended_at else None,
        trial.duration_s,
        place.host if place else None,
        place.peak_rss_bytes if place else None,
        *map(trial.params.get, names),
    ]


def _column(values: list[object]) -> list[object]:
    """Parquet's columns have one type: choices of several kinds become text."""
    kinds = {float if type(value) is int else type(value) for value in values if value is not None}
    return values if len(kinds) <= 1 else [None if value is None else str(value) for value in values]


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _harmless(cell: object) -> object:
    if isinstance(cell, bool):
        return str(cell).lower()
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
