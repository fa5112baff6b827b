"""All trials of a study as a file: CSV, JSON lines, Parquet. How a row looks is said in `exports`.

A trial that has ended never changes, so that its row of text is written once and kept: of ten thousand trials a
second download costs no more than its transfer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

from highnoon.shared.domain.trial import Trial
from highnoon.shared.store.overview import Place
from highnoon.webui import exports
from highnoon.webui.library import Library
from highnoon.webui.snapshot import Snapshot, has_ended
from highnoon.webui.studies import Study

_CHUNK = 1000
_MOST_STUDIES = 8

Rows = Callable[[Sequence[Trial], Mapping[int, Place]], str]


class Sheets:
    """One process's drawer of rows."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = Lock()
        self._kept: OrderedDict[tuple[object, ...], list[str]] = OrderedDict()

    def csv(self, study: Study) -> Iterator[str]:
        """A head, then a row per trial."""
        snapshot = self._library.snapshot(study.name)
        names = list(snapshot.space)
        rows = self._rows("csv", study, snapshot, lambda some, places: exports.csv_rows(some, names, places))
        return _after(exports.csv_head(names), rows)

    def jsonl(self, study: Study) -> Iterator[str]:
        """An object per line."""
        return self._rows("jsonl", study, self._library.snapshot(study.name), exports.json_lines)

    def parquet(self, study: Study) -> bytes:
        """The columns of the CSV with their types. Raises InvalidInput where pyarrow is missing."""
        snapshot = self._library.snapshot(study.name)
        return exports.parquet(snapshot.trials, list(snapshot.space), self._places(study, 0))

    def _rows(self, kind: str, study: Study, snapshot: Snapshot, write: Rows) -> Iterator[str]:
        """What can fail is done before the first part is asked for."""
        kept = self._kept_of((kind, study.id, *snapshot.space)) if study.record is not None else []
        return _written(snapshot.trials, self._places(study, len(kept) * _CHUNK), kept, write)

    def _places(self, study: Study, since: int) -> Mapping[int, Place]:
        return {} if study.record is None else self._library.overview().places(study.record.id, since=since)

    def _kept_of(self, key: tuple[object, ...]) -> list[str]:
        with self._lock:
            kept = self._kept.setdefault(key, [])
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_STUDIES:
                self._kept.popitem(last=False)
            return kept


def _written(trials: Sequence[Trial], places: Mapping[int, Place], kept: list[str], write: Rows) -> Iterator[str]:
    for number, start in enumerate(range(0, len(trials), _CHUNK)):
        if number < len(kept):
            yield kept[number]
            continue
        chunk = trials[start : start + _CHUNK]
        text = write(chunk, places)
        # Two downloads at a time write the same text; the second finds its place taken.
        if number == len(kept) and len(chunk) == _CHUNK and all(map(has_ended, chunk)):
            kept.append(text)
        yield text


def _after(head: str, rows: Iterator[str]) -> Iterator[str]:
    yield head
    yield from rows
