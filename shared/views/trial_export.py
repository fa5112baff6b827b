"""All trials of a study as a file: CSV, JSON lines or Parquet. Pure: trials and the places they ran at in, text out."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.note import Note, Notes
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.trials import metric_names, trial_object

if TYPE_CHECKING:
    from highnoon.shared.store.attempt_records import AttemptPlace

Names = Sequence[str]
Places: TypeAlias = "Mapping[int, AttemptPlace]"
"""Where each trial ran, by its number; of those that a coordinator ran."""

_COLUMNS = (
    "number", "state", "ending", "cause", "value", "loss", "params_count", "active_params", "feasible", "started_at",
    "ended_at", "duration_s", "host", "peak_rss_bytes",
)  # fmt: skip


def csv_head(names: Names, goals: Names = (), metrics: Names = (), notes: Notes | None = None) -> str:
    """The names of the columns; with `goals` several objectives have columns of their own.

    Tags and notes have columns where the study has any.
    """
    return _csv([list(map(_harmless, _titles(names, goals, metrics, notes or {})))])


def csv_rows(
    trials: Sequence[Trial],
    names: Names,
    places: Places,
    goals: Names = (),
    metrics: Names = (),
    notes: Notes | None = None,
) -> str:
    """A row per trial; text that a spreadsheet would run as a formula is quoted."""
    rows = (_row(trial, names, places, goals, metrics, notes or {}) for trial in trials)
    return _csv([list(map(_harmless, row)) for row in rows])


def json_lines(trials: Sequence[Trial], places: Places, notes: Notes | None = None) -> str:
    """An object per line."""
    found = notes or {}
    return "".join(
        dumps(trial_object(trial, places.get(trial.number), found.get(trial.number))) + "\n" for trial in trials
    )


def parquet(
    trials: Sequence[Trial], names: Names, places: Places, goals: Names = (), notes: Notes | None = None
) -> bytes:
    """The columns of the CSV with their types. Raises InvalidInput where pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        hint = "Install it: pip install 'highnoon-hpo[parquet]'. Or take CSV, which needs none."
        raise InvalidInput.of("request", "format", "needs the package pyarrow", value="parquet", hint=hint) from None
    metrics = metric_names(trials)
    rows = [_row(trial, names, places, goals, metrics, notes or {}) for trial in trials]
    titles = _titles(names, goals, metrics, notes or {})
    columns = {title: _column([row[place] for row in rows]) for place, title in enumerate(titles)}
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def _titles(names: Names, goals: Names, metrics: Names, notes: Notes) -> list[str]:
    return [
        *_COLUMNS,
        *(f"values.{goal}" for goal in goals),
        *(f"params.{name}" for name in names),
        *(f"metrics.{name}" for name in metrics),
        *(("tags", "note") if notes else ()),
    ]


def _row(trial: Trial, names: Names, places: Places, goals: Names, metrics: Names, notes: Notes) -> list[object]:
    shown = trial_object(trial, places.get(trial.number)) | {"value": trial.value, "loss": trial.loss}
    values = trial.values or (None,) * len(goals)
    note = notes.get(trial.number, Note())
    return [
        *(shown[column] for column in _COLUMNS),
        *values[: len(goals)],
        *map(trial.params.get, names),
        *map(trial.metrics.get, metrics),
        *((", ".join(note.tags), note.text) if notes else ()),
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
