"""`--until-empty`: a node ends when nothing was there for its resources for the whole grace, and not before."""

from __future__ import annotations

from highnoon.workers.node_record import IDLE_GRACE_S, IdleShutdown
from tests.ledger import Ledger


def test_only_work_for_its_own_resources_keeps_a_node(ledger: Ledger) -> None:
    clock = [0.0]
    idle = IdleShutdown(ledger.database, ("cpu",), now=lambda: clock[0])
    ledger.study(name="for-gpus", queue="gpu")
    assert not idle.is_due()
    clock[0] += IDLE_GRACE_S - 1
    assert not idle.is_due()

    study = ledger.study(name="for-cpus")
    clock[0] += 1
    assert not idle.is_due(), "a study came in the last second"

    ledger.studies.cancel(study.id)
    clock[0] += 100
    assert not idle.is_due(), "the grace starts from zero"
    clock[0] += IDLE_GRACE_S
    assert idle.is_due()


def test_a_paused_study_keeps_a_node_only_while_something_of_it_runs(ledger: Ledger) -> None:
    # Given a study of which one trial runs and one waits
    clock = [0.0]
    idle = IdleShutdown(ledger.database, ("cpu",), now=lambda: clock[0])
    studies, study = ledger.studies, ledger.study(2, name="paused")
    lease = ledger.start(ledger.tickets(study)[0])

    # When it is paused, and its trial ends later
    studies.pause(study.id)
    clock[0] += 10 * IDLE_GRACE_S
    assert not idle.is_due(), "a trial of it runs"
    ledger.finish(lease)

    # Then the node ends once that is over for long enough, and a resume in time keeps it
    assert not idle.is_due()
    clock[0] += IDLE_GRACE_S - 1
    studies.resume(study.id)
    assert not idle.is_due()
    studies.pause(study.id)
    assert not idle.is_due(), "the grace starts from zero"
    clock[0] += IDLE_GRACE_S
    assert idle.is_due()
