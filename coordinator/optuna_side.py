"""Optuna's side of the ledger's studies, opened once per process and kept.

Owns nothing but the cache: what to tell and when is planned in `planner`, how it is told stands in `shared.studies`.
"""

from __future__ import annotations

from highnoon.shared.ledger.studies import StudyRecord
from highnoon.shared.studies import OptunaStore, OptunaStudy
from highnoon.shared.study import StudySpec


class OptunaSide:
    """Studies by their ledger id."""

    def __init__(self, store: OptunaStore) -> None:
        self._store = store
        self._open: dict[int, OptunaStudy] = {}

    def study(self, record: StudyRecord) -> OptunaStudy:
        """Raises UnknownStudy when somebody deleted Optuna's study under us."""
        if record.id not in self._open:
            self._open[record.id] = self._store.open(StudySpec.from_json(record.spec))
        return self._open[record.id]
