"""Figures as gzipped JSON, kept: what is drawn twice from the same trials is computed once.

Gathers what a chart needs; the charts themselves are pure (`shared.views.charts`).
"""

from __future__ import annotations

import gzip
from collections import OrderedDict
from threading import Lock

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.views.charts import FIGURES, NEEDS_ATTEMPTS, FigureInput
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.studies import StudySummary
from highnoon.webui.study_repository import StudyRepository

_MOST_BYTES = 48_000_000
_SPANS = 1500


class FigureCache:
    """The figures of one process; the least recently used ones are dropped."""

    def __init__(self, repository: StudyRepository) -> None:
        self._repository = repository
        self._lock = Lock()
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._bytes = 0

    def figure(self, study: StudySummary, kind: str, *, x: str = "", y: str = "", raw: bool = False) -> bytes:
        """The figure as gzipped JSON. Raises InvalidInput for an unknown kind."""
        if kind not in FIGURES:
            problem = Problem(key="kind", message="is no figure", value=kind, hint=nearest(kind, FIGURES))
            raise InvalidInput("request", [problem])
        found = self._repository.trials(study.name)
        record = study.record if kind in NEEDS_ATTEMPTS else None
        progress = None if record is None else (study.running, study.over, study.state)
        key = (study.name, study.id, kind, x, y, raw, found.version, progress)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        figure = FIGURES[kind](
            FigureInput(
                trials=found.trials,
                space=found.space,
                maximize=found.maximize,
                params=(x, y) if kind == "contour" else (),
                raw=raw,
                spans=() if record is None else self._repository.queries().spans(record.id, limit=_SPANS),
                causes=() if record is None else self._repository.queries().causes(record.id),
                importance=self._repository.importance(study.name) if kind == "importance" else {},
            )
        )
        compressed = gzip.compress(dumps(figure.to_json()).encode(), 4)
        self._keep(key, compressed)
        return compressed

    def _keep(self, key: tuple[object, ...], compressed: bytes) -> None:
        with self._lock:
            self._bytes += len(compressed) - len(self._kept.get(key, b""))
            self._kept[key] = compressed
            while self._bytes > _MOST_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest)
