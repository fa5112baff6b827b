"""Figures as bytes, remembered: what is drawn twice from the same trials is computed once.

Gathers what a chart asks for; the charts themselves are pure (`charts`).
"""

from __future__ import annotations

import gzip
from collections import OrderedDict
from threading import Lock

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.webui.charts import FIGURES, Question
from highnoon.webui.library import Library
from highnoon.webui.plain import dumps
from highnoon.webui.studies import Study

_MOST_BYTES = 48_000_000
_SPANS = 1500
_OF_THE_LEDGER = frozenset({"timeline", "outcomes", "memory"})


class FigureCache:
    """One process's drawer of figures, gzipped."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = Lock()
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._bytes = 0

    def figure(self, study: Study, kind: str, *, x: str = "", y: str = "", raw: bool = False) -> bytes:
        """The figure as gzipped JSON. Raises InvalidInput for a kind that there is not."""
        if kind not in FIGURES:
            problem = Problem(key="kind", message="is no figure", value=kind, hint=nearest(kind, FIGURES))
            raise InvalidInput("request", [problem])
        snapshot = self._library.snapshot(study.name)
        attempts = study.record is not None and kind in _OF_THE_LEDGER
        standing = (study.running, study.over, study.state) if attempts else None
        key = (study.name, study.id, kind, x, y, raw, snapshot.version, standing)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        question = Question(
            snapshot=snapshot,
            x=x,
            y=y,
            raw=raw,
            spans=self._library.overview().spans(study.record.id, limit=_SPANS) if attempts and study.record else (),
            causes=self._library.overview().causes(study.record.id) if attempts and study.record else (),
            importance=self._library.importance(study.name) if kind == "importance" else {},
        )
        packed = gzip.compress(dumps(FIGURES[kind](question).to_json()).encode(), 4)
        self._keep(key, packed)
        return packed

    def _keep(self, key: tuple[object, ...], packed: bytes) -> None:
        with self._lock:
            self._bytes += len(packed) - len(self._kept.get(key, b""))
            self._kept[key] = packed
            while self._bytes > _MOST_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest)
