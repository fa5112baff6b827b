"""The ledger's contract, on PostgreSQL and on SQLite: the life of a ticket, the fence, and the database's clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import insert, inspect, make_url, select, text, update
from sqlalchemy.exc import IntegrityError

from highnoon.shared.domain.errors import LeaseLost, SchemaMismatch, ServiceRefused, ServiceUnavailable, UnknownStudy
from highnoon.shared.domain.lease import Disposition, Lease, Wish
from highnoon.shared.domain.states import Ending, StudyState, TicketState, WorkerState
from highnoon.shared.domain.trial import MemoryTrace, Outcome
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.control import Control
from highnoon.shared.store.database import Database
from highnoon.shared.store.leases import Holder, Leases, Progress
from highnoon.shared.store.losses import Losses
from highnoon.shared.store.node_failures import Streak, Streaks
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.schema import attempts, db_now, studies, tickets
from highnoon.shared.store.schema import bundles as bundle_rows
from highnoon.shared.store.studies import Studies, StudyRecord
from highnoon.shared.store.upgrades import ADDED_BY, INDEXES_ADDED_BY

SPEC = {"max_attempts": 3, "retry_errors": 0, "direction": "minimize"}
ANNA = Holder(worker_id="anna", host="node-a", pid=1)
BERT = Holder(worker_id="bert", host="node-b", pid=2)
USED = MemoryTrace(peak_bytes=300, limit_bytes=400, samples=((0.5, 200), (1.0, 300)))
DONE = Outcome(ending=Ending.COMPLETED, value=0.25, memory=USED)


class Ledger:
    """All roles on one database, and what a test wants to know about a row."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.database.create_schema()
        self.leases, self.studies = Leases(self.database), Studies(self.database)
        self.losses = Losses(self.database)
        self.control, self.nodes = Control(self.database), Nodes(self.database)

    def study(self, n_trials: int = 1, name: str = "digits", **spec: object) -> StudyRecord:
        return self.studies.create(name, {**SPEC, **spec}, queue="cpu", n_trials=n_trials)

    def tickets(self, study: StudyRecord) -> list[int]:
        with self.database.transaction() as connection:
            return list(
                connection.scalars(
                    select(tickets.c.id).where(tickets.c.study_id == study.id).order_by(tickets.c.ordinal)
                )
            )

    def state(self, ticket: int) -> str:
        with self.database.transaction() as connection:
            return str(connection.scalar(select(tickets.c.state).where(tickets.c.id == ticket)))

    def expire(self, lease: Lease) -> None:
        """As if the holder had been silent for a whole lease."""
        with self.database.transaction() as connection:
            connection.execute(
                update(tickets).where(tickets.c.id == lease.ticket_id).values(lease_expires_at=db_now() - 1.0)
            )

    def wait_out_the_pause(self, ticket: int) -> None:
        """As if the pause after a loss were over."""
        with self.database.transaction() as connection:
            connection.execute(update(tickets).where(tickets.c.id == ticket).values(not_before=db_now() - 1.0))

    def claim(self, ticket: int, holder: Holder = ANNA) -> Lease:
        lease = self.leases.claim(ticket, holder, ttl_s=30.0)
        assert lease is not None
        return lease


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    sqlite = request.param == "sqlite"
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db" if sqlite else request.getfixturevalue("postgres_url"))
    yield ledger
    ledger.database.close()


def test_the_life_of_a_ticket(ledger: Ledger) -> None:
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    assert ledger.state(ticket) == TicketState.WAITING

    assert ledger.control.dispatch(study.id, 5) == [ticket]
    assert ledger.state(ticket) == TicketState.QUEUED

    lease = ledger.claim(ticket)
    assert (lease.attempt, lease.ordinal, lease.losses, lease.before) == (1, 0, 0, None)
    ledger.leases.bind(lease, trial_id=11, trial_number=0, params={"x": 0.5}, log_path="trial-00000.log")
    assert ledger.leases.renew(lease, Progress(step=3, rss_bytes=1024)) is Wish.CARRY_ON

    ledger.leases.settle(lease, DONE)
    assert ledger.state(ticket) == TicketState.SETTLED
    (settled,) = ledger.control.settled()
    assert (settled.trial_id, settled.outcome) == (11, DONE)

    assert ledger.leases.close(ticket, 1) is True
    assert ledger.leases.close(ticket, 1) is False, "the second one who told it changes nothing"
    assert ledger.control.finish(study.id, state=StudyState.FINISHED, reason="n_trials") is True
    assert ledger.studies.get("digits").state is StudyState.FINISHED

    (attempt,) = ledger.studies.attempts(study.id)
    assert attempt.memory == USED
    assert (attempt.attempt, attempt.host, attempt.ending, attempt.trial_number) == (1, "node-a", Ending.COMPLETED, 0)


def test_only_one_of_many_claims_succeeds(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    start = threading.Barrier(8)

    def claim(number: int) -> Lease | None:
        start.wait()
        return ledger.leases.claim(ticket, Holder(worker_id=f"w{number}", host="h", pid=number), ttl_s=30.0)

    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(claim, range(8)))

    assert sum(lease is not None for lease in leases) == 1


def test_a_duplicate_message_is_dropped(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    ledger.claim(ticket)
    assert ledger.leases.claim(ticket, BERT, ttl_s=30.0) is None


def test_the_fence_stops_a_zombie(ledger: Ledger) -> None:
    # Given an attempt whose lease ran out and was reaped, and whose ticket somebody else holds now
    (ticket,) = ledger.tickets(ledger.study())
    zombie = ledger.claim(ticket)
    ledger.leases.bind(zombie, trial_id=1, trial_number=0, params={"x": 1}, log_path="log")
    ledger.expire(zombie)
    assert ledger.losses.lose(ticket, zombie.attempt, message="gone", only_expired=True) is Disposition.RETRY
    ledger.wait_out_the_pause(ticket)
    holder = ledger.claim(ticket, BERT)

    # When the zombie wakes, nothing that it writes lands
    with pytest.raises(LeaseLost):
        ledger.leases.renew(zombie, Progress())
    with pytest.raises(LeaseLost):
        ledger.leases.bind(zombie, trial_id=2, trial_number=1, params={}, log_path="log")
    with pytest.raises(LeaseLost):
        ledger.leases.settle(zombie, DONE)
    with pytest.raises(LeaseLost):
        ledger.leases.give_back(zombie, DONE, charge=False)
    assert ledger.leases.close(ticket, zombie.attempt) is False

    # Then the holder is undisturbed, and repeats the lost parameters
    assert (holder.attempt, holder.losses) == (2, 1)
    assert holder.before is not None
    assert (holder.before.params, holder.before.trial_number) == ({"x": 1}, 0)
    ledger.leases.settle(holder, DONE)
    assert ledger.state(ticket) == TicketState.SETTLED


def test_settling_again_after_a_lost_acknowledgement_succeeds(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.claim(ticket)
    ledger.leases.settle(lease, DONE)
    ledger.leases.settle(lease, DONE)
    ledger.leases.close(ticket, lease.attempt)
    ledger.leases.settle(lease, DONE)
    assert ledger.state(ticket) == TicketState.CLOSED


def test_giving_back_again_after_a_lost_acknowledgement_succeeds(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.claim(ticket)
    released = Outcome(ending=Ending.RELEASED)
    ledger.leases.give_back(lease, released, charge=False)
    ledger.leases.give_back(lease, released, charge=False)
    assert ledger.state(ticket) == TicketState.WAITING


def test_a_drain_charges_nothing_and_a_loss_does(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    ledger.leases.give_back(ledger.claim(ticket), Outcome(ending=Ending.RELEASED), charge=False)
    second = ledger.claim(ticket)
    assert (second.attempt, second.losses) == (2, 0)
    ledger.leases.give_back(second, Outcome(ending=Ending.KILLED), charge=True)
    third = ledger.claim(ticket)
    assert (third.attempt, third.losses) == (3, 1)


def test_a_ticket_that_a_neighbour_pushed_out_must_be_alone_wherever_it_is_tried_again(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    first = ledger.claim(ticket)
    assert not first.must_be_alone
    squeezed = Outcome(ending=Ending.KILLED, cause="oom_neighbour", memory=USED)
    ledger.leases.give_back(first, squeezed, charge=True)
    second = ledger.claim(ticket, BERT)
    assert second.must_be_alone
    ledger.leases.give_back(second, Outcome(ending=Ending.LOST, cause="lost"), charge=True)
    assert ledger.claim(ticket).must_be_alone, "also after an attempt that ended otherwise"


def test_the_last_loss_settles_the_ticket_as_lost(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    dispositions = []
    for _ in range(3):
        ledger.wait_out_the_pause(ticket)
        lease = ledger.claim(ticket)
        dispositions.append(ledger.losses.lose(ticket, lease.attempt, message="died", only_expired=False))
    assert dispositions == [Disposition.RETRY, Disposition.RETRY, Disposition.CLOSE]
    assert ledger.state(ticket) == TicketState.SETTLED
    (settled,) = ledger.control.settled()
    assert settled.outcome.ending is Ending.LOST


def test_a_living_lease_is_neither_expired_nor_reaped(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.claim(ticket)
    assert ledger.control.expired() == []
    assert ledger.losses.lose(ticket, lease.attempt, message="?", only_expired=True) is None
    ledger.expire(lease)
    assert ledger.control.expired() == [(ticket, 1)]
    assert ledger.leases.renew(lease, Progress()) is Wish.CARRY_ON, "an expired lease that nobody reaped can be renewed"
    assert ledger.control.expired() == []


def test_a_ticket_that_must_wait_is_not_claimed(ledger: Ledger) -> None:
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    ledger.leases.give_back(ledger.claim(ticket), Outcome(ending=Ending.KILLED), charge=True, delay_s=60.0)
    assert ledger.leases.claim(ticket, ANNA, ttl_s=30.0) is None
    assert ledger.control.dispatch(study.id, 5) == []
    (load,) = ledger.control.loads()
    assert (load.by_state, load.ready) == ({TicketState.WAITING: 1}, 0)


def test_a_message_for_a_paused_study_puts_the_ticket_back(ledger: Ledger) -> None:
    study = ledger.study()
    (ticket,) = ledger.control.dispatch(study.id, 1)
    assert ledger.studies.pause(study.id) is True
    assert ledger.leases.claim(ticket, ANNA, ttl_s=30.0) is None
    assert ledger.state(ticket) == TicketState.WAITING
    assert ledger.studies.resume(study.id) is True
    assert ledger.control.dispatch(study.id, 1) == [ticket]


def test_cancel_reaches_what_waits_at_once_and_what_runs_by_its_renewal(ledger: Ledger) -> None:
    study = ledger.study(3)
    running, queued, waiting = ledger.tickets(study)
    ledger.control.dispatch(study.id, 2)
    lease = ledger.claim(running)
    assert ledger.studies.cancel(study.id) is True
    assert [ledger.state(ticket) for ticket in (running, queued, waiting)] == ["leased", "cancelled", "cancelled"]
    assert ledger.leases.renew(lease, Progress()) is Wish.CANCEL
    assert ledger.leases.claim(queued, BERT, ttl_s=30.0) is None
    assert ledger.control.finish(study.id, state=StudyState.CANCELLED, reason="cancelled") is False
    ledger.leases.settle(lease, Outcome(ending=Ending.CANCELLED))
    ledger.leases.close(running, lease.attempt)
    assert ledger.control.finish(study.id, state=StudyState.CANCELLED, reason="cancelled") is True
    assert ledger.studies.cancel(study.id) is False


def test_a_cancelled_ticket_whose_holder_died_is_not_tried_again(ledger: Ledger) -> None:
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    lease = ledger.claim(ticket)
    ledger.studies.cancel(study.id)
    ledger.losses.lose(ticket, lease.attempt, message="died", only_expired=False)
    assert ledger.state(ticket) == TicketState.CANCELLED


def test_a_draining_worker_hears_of_it_by_its_renewal(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    ledger.nodes.enter("anna", host="node-a", pid=1, slots=2, queues=["cpu"])
    lease = ledger.claim(ticket)
    ledger.nodes.mark("anna", WorkerState.DRAINING)
    assert ledger.leases.renew(lease, Progress()) is Wish.DRAIN


def test_dispatch_takes_the_lowest_ordinals_and_never_twice(ledger: Ledger) -> None:
    study = ledger.study(5)
    all_tickets = ledger.tickets(study)
    assert ledger.control.dispatch(study.id, 2) == all_tickets[:2]
    assert ledger.control.dispatch(study.id, 9) == all_tickets[2:]
    assert ledger.control.dispatch(study.id, 9) == []
    assert [queued.ticket_id for queued in ledger.control.queued()] == all_tickets


def test_two_coordinators_that_dispatch_at_once_share_the_tickets(ledger: Ledger) -> None:
    study = ledger.study(60)
    start = threading.Barrier(4)

    def dispatch(_: int) -> list[int]:
        start.wait()
        return ledger.control.dispatch(study.id, 20)

    with ThreadPoolExecutor(4) as pool:
        taken = [ticket for share in pool.map(dispatch, range(4)) for ticket in share]

    assert len(taken) == len(set(taken)), "a ticket was dispatched twice"


def test_stop_cancels_what_has_not_begun(ledger: Ledger) -> None:
    study = ledger.study(3)
    first, second, third = ledger.tickets(study)
    ledger.claim(first)
    ledger.control.stop(study.id, "timeout")
    assert [ledger.state(ticket) for ticket in (first, second, third)] == ["leased", "cancelled", "cancelled"]
    assert ledger.studies.get("digits").stop_reason == "timeout"


def test_more_trials_get_further_ordinals_and_reopen_the_study(ledger: Ledger) -> None:
    study = ledger.study(2)
    for ticket in ledger.tickets(study):
        ledger.leases.settle(lease := ledger.claim(ticket), DONE)
        ledger.leases.close(ticket, lease.attempt)
    ledger.control.finish(study.id, state=StudyState.FINISHED, reason="n_trials")
    assert ledger.studies.extend(study.id, SPEC, n_trials=5) == 3
    assert ledger.studies.extend(study.id, SPEC, n_trials=5) == 0
    assert ledger.studies.get("digits").state is StudyState.RUNNING
    counts = ledger.studies.counts(study.id)
    assert (counts.total, counts.closed) == (5, 2)
    assert ledger.claim(ledger.tickets(study)[-1]).ordinal == 4


def test_a_declined_ticket_waits_again_and_a_claimed_one_is_not_touched(ledger: Ledger) -> None:
    study = ledger.study(2)
    first, second = ledger.control.dispatch(study.id, 2)
    ledger.claim(second)
    for ticket in (first, second):
        ledger.leases.decline(ticket)
    assert [ledger.state(ticket) for ticket in (first, second)] == [TicketState.WAITING, TicketState.RUNNING]


def test_a_lease_carries_the_specification_of_its_moment(ledger: Ledger) -> None:
    study = ledger.study(2)
    first, second = ledger.tickets(study)
    assert ledger.claim(first).spec == SPEC
    ledger.studies.extend(study.id, {**SPEC, "max_attempts": 5}, n_trials=2)
    assert ledger.claim(second).spec == {**SPEC, "max_attempts": 5}


def test_a_lost_ticket_waits_before_its_next_attempt(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(study := ledger.study())
    ledger.losses.lose(ticket, ledger.claim(ticket).attempt, message="its supervisor died", only_expired=False)
    assert ledger.state(ticket) == TicketState.WAITING
    assert ledger.leases.claim(ticket, BERT, ttl_s=30.0) is None
    assert ledger.control.dispatch(study.id, 1) == []


def test_more_trials_first_revive_the_tickets_that_a_limit_had_dropped(ledger: Ledger) -> None:
    study = ledger.study(4)
    ledger.control.mark_started(study.id)
    first = ledger.tickets(study)[0]
    ledger.leases.settle(lease := ledger.claim(first), Outcome(ending=Ending.FAILED, cause="exception"))
    ledger.leases.close(first, lease.attempt)
    assert ledger.control.recent_endings(study.id, 5) == [Ending.FAILED]
    ledger.control.stop(study.id, "failures_in_a_row")
    ledger.control.finish(study.id, state=StudyState.FINISHED, reason="n_trials")

    assert ledger.studies.extend(study.id, SPEC, n_trials=5) == 4
    assert [ledger.claim(ticket).ordinal for ticket in ledger.tickets(study)[1:]] == [1, 2, 3, 4]
    # The limits that ended it begin anew
    record = ledger.studies.get("digits")
    assert (record.state, record.stop_reason, record.started_at) == (StudyState.RUNNING, None, None)
    ledger.control.mark_started(study.id)
    assert ledger.control.recent_endings(study.id, 5) == []


def test_a_study_is_not_closed_over_tickets_that_are_just_being_added(ledger: Ledger) -> None:
    # Given a study without open tickets, to which somebody is adding one
    study = ledger.study(0)
    with ThreadPoolExecutor(1) as pool:
        with ledger.database.transaction() as connection:
            connection.execute(update(studies).where(studies.c.id == study.id).values(stop_reason=None))
            connection.execute(insert(tickets).values(study_id=study.id, ordinal=0))

            # When the coordinator closes it at the same moment
            closing = pool.submit(ledger.control.finish, study.id, state=StudyState.FINISHED, reason="n_trials")
            with pytest.raises(StillWaiting):
                closing.result(0.3)

        # Then the tickets win
        assert closing.result(30) is False
    assert ledger.studies.get("digits").state is StudyState.RUNNING


def test_more_trials_and_retries_leave_a_paused_study_paused(ledger: Ledger) -> None:
    study = ledger.study(1)
    (ticket,) = ledger.tickets(study)
    ledger.leases.settle(lease := ledger.claim(ticket), Outcome(ending=Ending.FAILED, cause="exception"))
    ledger.leases.close(ticket, lease.attempt)
    assert ledger.studies.pause(study.id)
    assert ledger.studies.extend(study.id, SPEC, n_trials=2) == 1
    assert ledger.studies.retry(study.id, endings=(Ending.FAILED,)) == 1
    assert ledger.studies.get("digits").state is StudyState.PAUSED


def test_retry_gives_failed_tickets_another_go_with_the_same_parameters(ledger: Ledger) -> None:
    study = ledger.study(2)
    good, bad = ledger.tickets(study)
    for ticket, outcome in ((good, DONE), (bad, Outcome(ending=Ending.FAILED, cause="exception"))):
        lease = ledger.claim(ticket)
        ledger.leases.bind(lease, trial_id=ticket, trial_number=ticket, params={"x": ticket}, log_path="log")
        ledger.leases.settle(lease, outcome)
        ledger.leases.close(ticket, lease.attempt)
    assert ledger.studies.retry(study.id, endings=(Ending.FAILED,)) == 1
    again = ledger.claim(bad)
    assert again.before is not None
    assert (again.attempt, again.before.params) == (2, {"x": bad})
    assert ledger.state(good) == TicketState.CLOSED


def test_presence(ledger: Ledger) -> None:
    ledger.nodes.enter("anna", host="node-a", pid=1, slots=2, queues=["cpu", "gpu"])
    ledger.nodes.enter("bert", host="node-b", pid=2, slots=1, queues=["cpu"])
    assert ledger.nodes.beat("anna", {"cpus": 8}) is WorkerState.ACTIVE
    assert ledger.nodes.beat("anna") is WorkerState.ACTIVE
    assert ledger.nodes.beat("nobody") is None
    ledger.nodes.mark("anna", WorkerState.QUARANTINED, "its GPU fell off the bus")
    anna, _ = ledger.nodes.workers(silent_for_s=60.0)
    assert (anna.state, anna.state_reason) == (WorkerState.QUARANTINED, "its GPU fell off the bus")
    assert anna.facts == {"cpus": 8}, "a beat without facts keeps the last ones"
    assert [(worker.id, worker.queues) for worker in ledger.nodes.workers(silent_for_s=60)] == [
        ("anna", ("cpu", "gpu")),
        ("bert", ("cpu",)),
    ]
    ledger.nodes.mark("bert", WorkerState.GONE)
    assert [worker.id for worker in ledger.nodes.workers(silent_for_s=60)] == ["anna"]
    assert ledger.nodes.workers(silent_for_s=-1) == []


def test_a_streak_is_what_a_node_failed_since_its_last_success_or_pardon_beside_others_at_the_same_studies(
    ledger: Ledger,
) -> None:
    ledger.nodes.enter("anna", host="node-a", pid=1, slots=1, queues=["cpu"])
    ledger.nodes.enter("bert", host="node-b", pid=2, slots=1, queues=["cpu"])
    study, other = ledger.study(n_trials=9), ledger.study(n_trials=1, name="other")
    failed = Outcome(ending=Ending.FAILED, cause="objective")
    killed = Outcome(ending=Ending.KILLED, cause="signal")
    ended = [(ANNA, failed), (ANNA, DONE), (ANNA, failed), (ANNA, killed), (BERT, DONE), (BERT, failed), (BERT, DONE)]
    waiting = iter(ledger.tickets(study))
    for holder, outcome in ended:
        ledger.leases.settle(ledger.claim(next(waiting), holder), outcome)
    ledger.leases.settle(ledger.claim(ledger.tickets(other)[0], BERT), DONE)
    released = ledger.claim(next(waiting))
    ledger.leases.give_back(released, Outcome(ending=Ending.RELEASED, cause="drain"), charge=False)
    poison = next(waiting)
    for _ in range(3):
        ledger.leases.give_back(ledger.claim(poison), failed, charge=False)
    streaks, both = Streaks(ledger.database), [study.id, other.id]
    assert streaks.of(["anna", "bert"], both) == [
        Streak(worker_id="anna", length=3, causes={"signal": 1, "objective": 2}, others_ended=3, others_failed=1)
    ], "one ticket that fails again and again counts once"
    assert streaks.of(["anna"], both)[0].others_ended == 0, "only of nodes that are asked for"
    assert streaks.of(["anna", "bert"], [other.id]) == []
    assert not ledger.nodes.reinstate("anna"), "it is not in quarantine"
    assert ledger.nodes.move("anna", [WorkerState.ACTIVE], WorkerState.QUARANTINED, "fails alone")
    assert ledger.nodes.reinstate("anna")
    (anna, _) = ledger.nodes.workers(silent_for_s=60.0)
    assert (anna.state, anna.state_reason) == (WorkerState.ACTIVE, None)
    assert streaks.of(["anna", "bert"], both) == []


def test_an_agent_that_did_not_hear_that_it_entered_may_say_so_again(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.nodes.enter("anna", host="node-a", pid=1, slots=2, queues=["cpu"])
    assert [worker.id for worker in ledger.nodes.workers(silent_for_s=60.0)] == ["anna"]


def test_leadership_is_kept_until_it_expires_and_then_taken(ledger: Ledger) -> None:
    assert ledger.nodes.lead("one", ttl_s=60).mine
    assert ledger.nodes.lead("one", ttl_s=60).term == 1
    other = ledger.nodes.lead("two", ttl_s=60)
    assert (other.mine, other.holder) == (False, "one")
    ledger.nodes.step_down("one")
    taken = ledger.nodes.lead("two", ttl_s=60)
    assert (taken.mine, taken.term) == (True, 2)


def test_one_name_one_study(ledger: Ledger) -> None:
    ledger.study()
    with pytest.raises(IntegrityError):
        ledger.study()
    with pytest.raises(UnknownStudy, match="nothing"):
        ledger.studies.get("nothing")
    assert len(ledger.studies.all()) == 1


def test_the_database_refuses_a_lease_without_an_expiry(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    with pytest.raises(IntegrityError), ledger.database.transaction() as connection:
        connection.execute(update(tickets).where(tickets.c.id == ticket).values(state="leased"))


def test_a_coordinator_brings_an_older_ledger_up_to_date_and_others_wait_for_it(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    with ledger.database.transaction() as connection:
        connection.execute(text("UPDATE hn_meta SET value = '1' WHERE key = 'schema_version'"))
        for column in (column for added in ADDED_BY.values() for column in added):
            connection.execute(text(f"ALTER TABLE {column.table.name} DROP COLUMN {column.name}"))
        for index in (index for added in INDEXES_ADDED_BY.values() for index in added):
            index.drop(connection)
    with pytest.raises(ServiceUnavailable, match="start a coordinator of this version"):
        ledger.database.check_schema()
    ledger.database.create_schema()
    ledger.database.check_schema()
    assert ledger.leases.claim(ticket, ANNA, ttl_s=30.0) is not None
    with ledger.database.transaction() as connection:
        assert list(connection.execute(select(attempts.c.memory, attempts.c.code))) == [(None, None)]
        there = {index["name"] for index in inspect(connection).get_indexes(attempts.name)}
        assert there == {index.name for index in attempts.indexes}


def test_a_bundle_is_kept_once_and_may_be_signed_again(ledger: Ledger) -> None:
    bundles, digest = Bundles(ledger.database), "d" * 64
    assert bundles.find(digest) is None and bundles.archive(digest) == b""
    bundles.put(digest, b"\0archive", "signed")
    bundles.put(digest, b"\0archive", "signed anew")
    row = bundles.find(digest)
    assert row is not None
    assert (row.signature, row.size_bytes, bundles.archive(digest)) == ("signed anew", 8, b"\0archive")


def test_bundles_go_once_no_study_names_them_and_nobody_is_about_to(ledger: Ledger) -> None:
    # Given one that two studies name, one that nobody does, and one that was submitted a moment ago
    bundles = Bundles(ledger.database)
    for digest in ("shared", "orphan", "coming"):
        bundles.put(digest, b"\0archive", "signed")
    first, second = ledger.study(name="first", bundle="shared"), ledger.study(name="second", bundle="shared")
    ledger.study(name="without")
    with ledger.database.transaction() as connection:
        connection.execute(update(bundle_rows).values(created_at=db_now() - 3601))
    bundles.put("coming", b"\0archive", "signed anew")

    def kept() -> set[str]:
        return {digest for digest in ("shared", "orphan", "coming") if bundles.find(digest)}

    # When room is made, then the orphan goes; and the shared one with the last study that names it
    assert (bundles.drop_unused(), kept()) == (1, {"shared", "coming"})
    ledger.studies.delete(first.id)
    assert (bundles.drop_unused(), kept()) == (0, {"shared", "coming"})
    ledger.studies.delete(second.id)
    assert (bundles.drop_unused(), kept()) == (1, {"coming"})


def test_an_attempt_says_which_code_it_ran(ledger: Ledger) -> None:
    study = ledger.study()
    lease = ledger.claim(*ledger.tickets(study))
    ledger.leases.bind(lease, trial_id=1, trial_number=0, params={}, log_path="x", code="c" * 64)
    assert [attempt.code for attempt in ledger.studies.attempts(study.id)] == ["c" * 64]


def test_creating_the_schema_twice_is_harmless_and_another_version_is_refused(ledger: Ledger) -> None:
    ledger.database.create_schema()
    with ledger.database.transaction() as connection:
        connection.execute(text("UPDATE hn_meta SET value = '99' WHERE key = 'schema_version'"))
    with pytest.raises(SchemaMismatch, match="99"):
        ledger.database.check_schema()


def test_a_database_without_a_ledger_says_so(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="no HighNoon ledger"):
        Database(f"sqlite:///{tmp_path}/empty.db").check_schema()


def test_an_unreachable_database_is_unavailable_and_its_password_stays_hidden() -> None:
    database = Database("postgresql://anna:secret@127.0.0.1:1/nowhere")
    with pytest.raises(ServiceUnavailable) as caught:
        database.check_schema()
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_may_only_be_read_for_now_is_waited_for(postgres_url: str) -> None:
    """A standby that is not promoted yet, or a full disk: it passes, and no trial may die of it."""
    Ledger(postgres_url).database.close()
    name = postgres_url.rpartition("/")[2]
    with (
        closing(psycopg2.connect(postgres_url.replace("+psycopg2", "", 1))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        connection.commit()
    database = Database(postgres_url)
    with pytest.raises(ServiceUnavailable, match="read-only transaction"):
        Nodes(database).enter("anna", host="node-a", pid=1, slots=1, queues=["cpu"])
    database.close()


def test_a_user_without_rights_is_refused_by_name_and_not_retried(postgres_url: str) -> None:
    owner = Database(postgres_url)
    with owner.transaction() as connection:
        connection.execute(text("CREATE ROLE visitor LOGIN PASSWORD 'secret'"))
    try:
        address = make_url(owner.url).set(username="visitor", password="secret")
        visitor = Database(address.render_as_string(hide_password=False))
        with pytest.raises(ServiceRefused, match="permission denied") as refused:
            visitor.create_schema()
        assert "secret" not in str(refused.value)
        visitor.close()
        with pytest.raises(ServiceRefused, match="permission denied"):
            OptunaStore(address.render_as_string(hide_password=False))
    finally:
        with owner.transaction() as connection:
            connection.execute(text("DROP ROLE visitor"))
        owner.close()
