"""What a study gives: figures for the pages, and all its trials as a file (CSV, JSON lines, Parquet).

A figure, which costs time, is kept, gzipped, until its trials change. The charts are drawn by `shared.views.charts`;
files of the best trial are in `shared.views.best_config`.
"""

from __future__ import annotations

import gzip
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain
from threading import Lock

from highnoon.shared.domain.errors import InvalidInput, nearest
from highnoon.shared.domain.note import Notes
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.charts import FIGURES, NEEDS_ATTEMPTS, figure_input
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.studies import StudySummary
from highnoon.shared.views.trial_export import Places, csv_head, csv_rows, json_lines, parquet
from highnoon.shared.views.trials import metric_names
from highnoon.webui.study_repository import StudyRepository

_MOST_BYTES = 48_000_000
_CHUNK = 1000
MOST_PARAMS = 10
"""How many parameters a figure shows at first."""


class FigureCache:
    """The figures of one process; the least recently used ones are dropped."""

    def __init__(self, repository: StudyRepository) -> None:
        self._repository = repository
        self._lock = Lock()
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._bytes = 0

    def figure(
        self,
        study: StudySummary,
        kind: str,
        *,
        x: str = "",
        y: str = "",
        raw: bool = False,
        whole: bool = False,
        objective: int = 0,
    ) -> bytes:
        """The figure as gzipped JSON; `whole` with all parameters. Raises InvalidInput for an unknown kind.

        Of several objectives the values of the one at this place are drawn.
        """
        if kind not in FIGURES:
            raise InvalidInput.of("request", "kind", "is no figure", value=kind, hint=nearest(kind, FIGURES))
        found = self._repository.trials(study.name)
        record = study.record if kind in NEEDS_ATTEMPTS else None
        progress = None if record is None else (study.running, study.closed, study.state)
        objective = min(objective, max(0, len(found.objectives) - 1))
        key = (kind, x, y, raw, whole, objective, found.serial, progress)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        asked = figure_input(
            kind,
            found.trials,
            found.space,
            found.directions,
            objectives=found.objectives,
            objective=objective,
            params=(x, y) if kind in ("pareto", "contour") else (),
            most_params=None if whole else MOST_PARAMS,
            raw=raw,
            importance=lambda: self._repository.importance(study.name, objective),
            attempts=None if record is None else (self._repository.queries().attempts, record.id),
        )
        compressed = gzip.compress(dumps(FIGURES[kind](asked).to_json()).encode(), 4)
        self._keep(key, compressed)
        return compressed

    def _keep(self, key: tuple[object, ...], compressed: bytes) -> None:
        with self._lock:
            self._bytes += len(compressed) - len(self._kept.get(key, b""))
            self._kept[key] = compressed
            while self._bytes > _MOST_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest)


def csv_file(repository: StudyRepository, study: StudySummary, notes: Notes) -> Iterator[str]:
    """A head, then a row per trial. What can fail is done before the first part is asked for."""
    found, places = repository.trials(study.name), _places(repository, study)
    names, metrics, goals = list(found.space), metric_names(found.trials), found.objectives
    head = csv_head(names, goals, metrics, notes)
    return chain([head], (csv_rows(some, names, places, goals, metrics, notes) for some in _chunks(found.trials)))


def json_lines_file(repository: StudyRepository, study: StudySummary, notes: Notes) -> Iterator[str]:
    """An object per line. What can fail is done before the first part is asked for."""
    found, places = repository.trials(study.name), _places(repository, study)
    return (json_lines(some, places, notes) for some in _chunks(found.trials))


def parquet_file(repository: StudyRepository, study: StudySummary, notes: Notes) -> bytes:
    """The columns of the CSV with their types. Raises InvalidInput where pyarrow is missing."""
    found, places = repository.trials(study.name), _places(repository, study)
    return parquet(found.trials, list(found.space), places, found.objectives, notes)


def _places(repository: StudyRepository, study: StudySummary) -> Places:
    return {} if study.record is None else repository.queries().attempts.places(study.record.id)


def _chunks(trials: Sequence[Trial]) -> Iterator[Sequence[Trial]]:
    return (trials[start : start + _CHUNK] for start in range(0, len(trials), _CHUNK))
