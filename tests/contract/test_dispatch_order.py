"""The order in which the coordinator's messages are sent: what was tried before goes to the head of the queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import update

from highnoon.coordinator.cluster_metrics import Counters
from highnoon.coordinator.executor import ActionExecutor
from highnoon.coordinator.planner import Action, Dispatch, Resend
from highnoon.coordinator.study_faults import StudyFaults
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.states import TicketState
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.control import Control
from highnoon.shared.store.schema import db_now, tickets
from highnoon.shared.store.snapshot_queries import SnapshotQueries

SPEC: dict[str, Any] = {
    "name": "digits",
    "objective": "tests.objectives:noop",
    "search_space": {"x": ["uniform", 0.0, 1.0]},
    "direction": "minimize",
    "n_trials": 4,
}


class RecordingQueue:
    """In place of Redis: the queue as workers would empty it."""

    def __init__(self) -> None:
        self.tickets: list[int] = []

    def publish(self, messages: Sequence[RunTrial], *, resource: str, first: bool = False) -> None:
        place = 0 if first else len(self.tickets)
        self.tickets[place:place] = [message.ticket for message in messages]


@pytest.fixture
def access(postgres_url: str) -> Iterator[Access]:
    with opened(postgres_url, create=True) as access:
        yield access


def test_ticket_that_was_tried_before_goes_to_the_head_of_the_queue_also_when_its_message_was_lost(
    access: Access,
) -> None:
    optuna_id = access.store.create_study("digits", "minimize")
    record = access.studies.create("digits", SPEC, queue="cpu", n_trials=4, optuna_study_id=optuna_id)
    with access.database.transaction() as connection:
        ids = sorted(connection.scalars(tickets.select().with_only_columns(tickets.c.id)))
        connection.execute(update(tickets).where(tickets.c.id.in_(ids[2:])).values(attempt=1))

    study = {"study_id": record.id, "name": "digits", "resource": "cpu"}
    assert _sent(access, Dispatch(**study, count=3, tried=1)) == [ids[2], ids[0], ids[1]], "one that was tried waits"
    assert _sent(access, Dispatch(**study, count=1, tried=1)) == [ids[3]]
    assert _sent(access, Resend(**study, ticket_ids=tuple(ids[1:]))) == [ids[2], ids[3], ids[1]]


def test_age_of_the_newest_message_whose_ticket_runs_for_the_first_time_is_known(access: Access) -> None:
    snapshot = SnapshotQueries(access.database)
    optuna_id = access.store.create_study("digits", "minimize")
    access.studies.create("digits", SPEC, queue="cpu", n_trials=4, optuna_study_id=optuna_id)
    assert snapshot.newest_started() == {}
    with access.database.transaction() as connection:
        ids = sorted(connection.scalars(tickets.select().with_only_columns(tickets.c.id)))
        # Two that run for the first time, one that was tried before, and one that is queued
        for id_, (attempt, age_s) in zip(ids, [(1, 2000.0), (1, 1000.0), (2, 10.0), (0, 10.0)], strict=True):
            running = {"state": TicketState.RUNNING, "lease_expires_at": db_now() + 30.0} if attempt else {}
            values = {"state": TicketState.QUEUED, **running, "attempt": attempt, "queued_at": db_now() - age_s}
            connection.execute(update(tickets).where(tickets.c.id == id_).values(values))
    assert snapshot.newest_started() == {"cpu": pytest.approx(1000.0, abs=500.0)}


def _sent(access: Access, action: Action) -> list[int]:
    counters, queue = Counters(), RecordingQueue()
    faults = StudyFaults(Control(access.database), counters)
    queues: Any = queue
    ActionExecutor(database=access.database, queues=queues, faults=faults, counters=counters).execute([action])
    return queue.tickets
