"""All trials of a study as a file: CSV, JSON lines, Parquet.

A trial that has ended never changes, so that its row of text is written once and kept: of ten thousand trials a
second download costs no more than its transfer. Formats of the best trial are in `shared.views.best_config`.
"""

from __future__ import annotations

import csv
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from threading import Lock

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.queries import AttemptPlace
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.studies import StudySummary
from highnoon.shared.views.trials import has_ended, trial_object
from highnoon.webui.study_repository import StudyRepository, StudyTrials

_CHUNK = 1000
_MOST_STUDIES = 8
_COLUMNS = (
    "number", "state", "ending", "cause", "value", "loss", "started_at", "ended_at", "duration_s", "host",
    "peak_rss_bytes",
)  # fmt: skip

Places = Mapping[int, AttemptPlace]
Rows = Callable[[Sequence[Trial], Places], str]


class TrialExport:
    """The exports of one process, with the rows that it keeps."""

    def __init__(self, repository: StudyRepository) -> None:
        self._repository = repository
        self._lock = Lock()
        self._kept: OrderedDict[tuple[object, ...], list[str]] = OrderedDict()

    def csv(self, study: StudySummary) -> Iterator[str]:
        """A head, then a row per trial."""
        found = self._repository.trials(study.name)
        names = list(found.space)
        rows = self._rows("csv", study, found, lambda trials, places: csv_rows(trials, names, places))
        return chain([csv_head(names)], rows)

    def jsonl(self, study: StudySummary) -> Iterator[str]:
        """An object per line."""
        return self._rows("jsonl", study, self._repository.trials(study.name), json_lines)

    def parquet(self, study: StudySummary) -> bytes:
        """The columns of the CSV with their types. Raises InvalidInput where pyarrow is missing."""
        found = self._repository.trials(study.name)
        return parquet(found.trials, list(found.space), self._places(study, 0))

    def _rows(self, kind: str, study: StudySummary, found: StudyTrials, write: Rows) -> Iterator[str]:
        """What can fail is done before the first part is asked for."""
        kept = self._kept_rows((kind, study.id, *found.space)) if study.record is not None else []
        return _written(found.trials, self._places(study, len(kept) * _CHUNK), kept, write)

    def _places(self, study: StudySummary, since: int) -> Places:
        return {} if study.record is None else self._repository.queries().places(study.record.id, since=since)

    def _kept_rows(self, key: tuple[object, ...]) -> list[str]:
        with self._lock:
            kept = self._kept.setdefault(key, [])
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_STUDIES:
                self._kept.popitem(last=False)
            return kept


def csv_head(names: Sequence[str]) -> str:
    """The names of the columns."""
    return _csv([[*_COLUMNS, *(_harmless(f"params.{name}") for name in names)]])


def csv_rows(trials: Sequence[Trial], names: Sequence[str], places: Places) -> str:
    """A row per trial; text that a spreadsheet would run as a formula is quoted."""
    return _csv([list(map(_harmless, _row(trial, names, places))) for trial in trials])


def json_lines(trials: Sequence[Trial], places: Places) -> str:
    """An object per line."""
    return "".join(dumps(trial_object(trial, places.get(trial.number))) + "\n" for trial in trials)


def parquet(trials: Sequence[Trial], names: Sequence[str], places: Places) -> bytes:
    """The columns of the CSV with their types. Raises InvalidInput where pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        hint = "Install pyarrow where the dashboard runs: pip install 'highnoon-hpo[parquet]'."
        problem = Problem(key="format", message="needs the package pyarrow", value="parquet", hint=hint)
        raise InvalidInput("request", [problem]) from None
    rows = [_row(trial, names, places) for trial in trials]
    titles = [*_COLUMNS, *(f"params.{name}" for name in names)]
    columns = {title: _column([row[place] for row in rows]) for place, title in enumerate(titles)}
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def _written(trials: Sequence[Trial], places: Places, kept: list[str], write: Rows) -> Iterator[str]:
    for number, start in enumerate(range(0, len(trials), _CHUNK)):
        if number < len(kept):
            yield kept[number]
            continue
        chunk = trials[start : start + _CHUNK]
        text = write(chunk, places)
        # Two downloads at a time write the same text; only the first one is kept.
        if number == len(kept) and len(chunk) == _CHUNK and all(map(has_ended, chunk)):
            kept.append(text)
        yield text


def _row(trial: Trial, names: Sequence[str], places: Places) -> list[object]:
    shown = trial_object(trial, places.get(trial.number))
    return [*(shown[column] for column in _COLUMNS), *map(trial.params.get, names)]


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
