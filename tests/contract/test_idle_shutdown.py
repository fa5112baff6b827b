"""`--until-empty`: a node ends when nothing was there for its resources for the whole grace, and not before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store.database import Database
from highnoon.shared.store.leases import Holder, Leases
from highnoon.shared.store.studies import Studies
from highnoon.workers.node_record import IDLE_GRACE_S, IdleShutdown

SPEC = {"max_attempts": 3, "retry_errors": 0, "direction": "minimize"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    database.create_schema()
    yield database
    database.close()


def test_only_work_for_its_own_resources_keeps_a_node(database: Database) -> None:
    clock = [0.0]
    idle = IdleShutdown(database, ("cpu",), now=lambda: clock[0])
    Studies(database).create("for-gpus", {}, queue="gpu", n_trials=1)
    assert not idle.is_due()
    clock[0] += IDLE_GRACE_S - 1
    assert not idle.is_due()

    study = Studies(database).create("for-cpus", {}, queue="cpu", n_trials=1)
    clock[0] += 1
    assert not idle.is_due(), "a study came in the last second"

    Studies(database).cancel(study.id)
    clock[0] += 100
    assert not idle.is_due(), "the grace starts from zero"
    clock[0] += IDLE_GRACE_S
    assert idle.is_due()


def test_a_paused_study_keeps_a_node_only_while_something_of_it_runs(database: Database) -> None:
    # Given a study of which one trial runs and one waits
    clock = [0.0]
    idle = IdleShutdown(database, ("cpu",), now=lambda: clock[0])
    leases, studies = Leases(database), Studies(database)
    study = studies.create("paused", SPEC, queue="cpu", n_trials=2)
    lease = leases.claim(1, Holder(worker_id="anna", host="node-a", pid=1), ttl_s=30.0)
    assert lease is not None

    # When it is paused, and its trial ends later
    studies.pause(study.id)
    clock[0] += 10 * IDLE_GRACE_S
    assert not idle.is_due(), "a trial of it runs"
    leases.settle(lease, Outcome(ending=Ending.COMPLETED, value=0.25))

    # Then the node ends once that is over for long enough, and a resume in time keeps it
    assert not idle.is_due()
    clock[0] += IDLE_GRACE_S - 1
    studies.resume(study.id)
    assert not idle.is_due()
    studies.pause(study.id)
    assert not idle.is_due(), "the grace starts from zero"
    clock[0] += IDLE_GRACE_S
    assert idle.is_due()
