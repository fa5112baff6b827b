"""Optuna's side of the ledger's studies, opened once per process and kept.

Owns nothing but the cache: what to tell and when is planned in `planner`, how it is told stands in `shared.studies`.
"""

from __future__ import annotations

from highnoon.shared.domain.study import StudySpec
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.studies import StudyRecord


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
