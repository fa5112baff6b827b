"""A run never waits without end for what one of its own faults holds, and shows what it waits for."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.chaos.clients import OUTAGE, connected
from tests.chaos.faults import FAULTS, STUDY
from tests.chaos.service_faults import locked_ticket
from tests.chaos.waits import Waits
from tests.chaos.world import World
from tests.support import eventually


def _world(database_url: str) -> World:
    cluster: Any = SimpleNamespace(database_url=database_url, redis_url="")
    return World(cluster, None, 3.0)  # type: ignore[arg-type]


def test_foreign_trial_is_put_off_while_a_fault_has_locked_its_study(postgres_url: str) -> None:
    study = optuna.create_study(study_name=STUDY, storage=postgres_url)
    world, chance = _world(postgres_url), random.Random(1)
    assert locked_ticket(world, chance) is not None

    assert FAULTS["foreign_trial"](world, chance) is None
    assert locked_ticket(world, chance) is None

    eventually(lambda: world.turn() or not world.has_timers, what="the lock to be released")
    FAULTS["foreign_trial"](world, chance)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE]


@pytest.mark.timeout(60)
def test_foreign_trial_does_not_wait_without_end_for_a_study_that_another_client_has_locked(postgres_url: str) -> None:
    optuna.create_study(study_name=STUDY, storage=postgres_url)
    world, chance = _world(postgres_url), random.Random(1)
    with closing(connected(postgres_url)) as other, other.cursor() as cursor:
        cursor.execute("select 1 from studies where study_name = %s for update", (STUDY,))
        with pytest.raises(OUTAGE):
            FAULTS["foreign_trial"](world, chance)


def test_wait_beyond_the_limit_is_reported_once_with_its_place() -> None:
    reports: list[str] = []
    reported = threading.Event()
    waits = Waits(limit_s=0.05, report=lambda text: (reports.append(text), reported.set())[0])
    with waits.named("a short one"):
        pass
    with waits.named("a lock"):
        assert reported.wait(30.0)
    waits.close()
    assert len(reports) == 1
    assert "for a lock" in reports[0] and "test_wait_beyond_the_limit" in reports[0]
