"""`--until-empty`: a node ends when nothing was there for its resources for the whole grace, and not before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.ledger import Database, Studies
from workers.emptiness import GRACE_S, Emptiness


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    database.create_schema()
    yield database
    database.close()


def test_what_waits_for_this_node_keeps_it_and_what_waits_for_others_does_not(database: Database) -> None:
    clock = [0.0]
    emptiness = Emptiness(database, ("cpu",), now=lambda: clock[0])
    Studies(database).create("for-gpus", {}, queue="gpu", n_trials=1)
    assert not emptiness.lasts()
    clock[0] += GRACE_S - 1
    assert not emptiness.lasts()

    study = Studies(database).create("for-cpus", {}, queue="cpu", n_trials=1)
    clock[0] += 1
    assert not emptiness.lasts(), "a study came in the last second"

    Studies(database).cancel(study.id)
    clock[0] += 100
    assert not emptiness.lasts(), "the grace begins anew"
    clock[0] += GRACE_S
    assert emptiness.lasts()
