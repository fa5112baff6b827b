"""Reads the curves of one trial's metrics: from its attempt in the ledger, else from Optuna's trial.

One trial at a time: no list and no history of a study reads them.
"""

from __future__ import annotations

from sqlalchemy import select

from highnoon.shared.domain.metric_history import Curves, curves_of
from highnoon.shared.store.access import Access
from highnoon.shared.store.schema import attempts, tickets
from highnoon.shared.store.study_records import StudyRecord


def metric_history(access: Access, name: str, number: int, record: StudyRecord | None) -> Curves:
    """By metric, each as (step, value) by step; {} without any. `record` is None for a study that no coordinator runs.

    The number is of a trial that exists.
    """
    if record is not None:
        statement = (
            select(attempts.c.metric_history)
            .join(tickets, tickets.c.id == attempts.c.ticket_id)
            .where(tickets.c.study_id == record.id, attempts.c.trial_number == number)
        )
        found = access.database.rows(statement)
        if found:
            return curves_of(found[0].metric_history)
    return access.store.metric_history(name, number)
