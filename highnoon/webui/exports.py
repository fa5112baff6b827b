"""All trials in the formats that people take away; those of the best are `shared.exports`. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from highnoon.webui.plain import dumps
from highnoon.webui.snapshot import cause_of, ending_of
from shared.exports import BEST as BEST
from shared.ledger.overview import AttemptSpan
from shared.trial import Trial

_CHUNK = 1000
_CSV_HEAD = ("number", "state", "ending", "cause", "value", "loss", "started_at", "ended_at", "duration_s", "host")
_PEAK = "peak_rss_bytes"


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


def _csv_row(trial: Trial, names: Sequence[str], spans: Mapping[int, AttemptSpan]) -> list[object]:
    span = spans.get(trial.number)
    row = [
        trial.number,
        str(trial.state),
        ending_of(trial),
        _harmless(cause_of(trial)),
        trial.value,
        trial.loss,
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
