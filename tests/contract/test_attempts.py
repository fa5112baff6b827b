"""The life of an attempt: one transaction at each end, under the fence, whatever dies, repeats or interferes."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import optuna
import psycopg2
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from sqlalchemy import make_url, select, text, update

from highnoon.coordinator.planner import Snapshot, Stop, plan
from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.errors import LeaseLost, ServiceRefused, ServiceUnavailable
from highnoon.shared.domain.lease import Disposition, Holder, Lease, Progress, StartRefusal, retry_delay_s
from highnoon.shared.domain.states import OPTUNA_STATE, Ending, StudyState, TicketState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store import connections
from highnoon.shared.store.access import Access
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.database import Database
from highnoon.shared.store.queries import LedgerQueries
from highnoon.shared.store.schema import attempts, db_now, studies, tickets
from highnoon.shared.store.stored_files import StoredFiles
from highnoon.shared.store.submission import submit
from tests.ledger import ANNA, BERT, DONE, FAILED, KILLED, RELEASED, SPEC, USED, Ledger, point
from tests.wire import counted

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


# --- Start


def test_start_binds_ticket_trial_and_attempt_in_one_step(ledger: Ledger) -> None:
    study = ledger.study()
    (ticket,) = ledger.control.dispatch(study.id, 5)
    candidate = ledger.look(ticket)
    assert (candidate.study_name, candidate.attempt, candidate.ordinal, candidate.before) == ("digits", 0, 0, None)

    new = point(0.5, user_attrs={"who": "anna"}, system_attrs={"grid_id": 3})
    lease = ledger.attempts.start(candidate, new, ANNA, ttl_s=30.0, log_path="logs/trial-{number}.log", code="c" * 64)

    assert isinstance(lease, Lease)
    assert (lease.attempt, lease.trial_number, lease.params, lease.spec) == (1, 0, {"x": 0.5}, SPEC)
    assert ledger.state(ticket) == TicketState.RUNNING
    trial = ledger.trial(lease)
    trial._validate()
    assert (trial.state, trial.params, trial.distributions) == (TrialState.RUNNING, new.params, new.distributions)
    assert trial.user_attrs == {"who": "anna", "highnoon:ticket": ticket, "highnoon:attempt": 1}
    assert trial.system_attrs == {"grid_id": 3}
    assert trial.datetime_start is not None and abs(trial.datetime_start.timestamp() - ledger.studies.clock()) < 60
    (attempt,) = ledger.studies.attempts(study.id)
    assert (attempt.attempt, attempt.host, attempt.pid, attempt.trial_number) == (1, "node-a", 1, 0)
    assert (attempt.log_path, attempt.code) == ("logs/trial-00000.log", "c" * 64)


def test_only_one_of_many_starts_of_a_ticket_succeeds(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    candidate, barrier = ledger.look(ticket), threading.Barrier(8)

    def start(number: int) -> Lease | StartRefusal:
        barrier.wait()
        return ledger.start_at(candidate, Holder(worker_id=f"w{number}", host="h", pid=number))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(start, range(8)))

    assert sum(isinstance(answer, Lease) for answer in answers) == 1
    assert answers.count(StartRefusal.NOT_AVAILABLE) == 7
    assert len(ledger.optuna().trials) == 1, "a refused start writes nothing"


def test_thousands_of_starts_by_eight_threads_get_distinct_numbers(ledger: Ledger) -> None:
    study = ledger.study(2000)
    candidates = iter(ledger.tickets(study))
    lock = threading.Lock()

    def work(number: int) -> list[int]:
        holder, numbers = Holder(worker_id=f"w{number}", host="h", pid=number), []
        while True:
            with lock:
                ticket = next(candidates, None)
            if ticket is None:
                return numbers
            lease = ledger.start(ticket, holder)
            numbers.append(lease.trial_number)
            ledger.finish(lease, DONE)

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for share in pool.map(work, range(8)) for number in share]
    assert sorted(numbers) == list(range(2000))
    counts = ledger.studies.counts(study.id)
    assert (counts.closed, counts.attempts) == (2000, 2000)
    with ledger.database.transaction() as connection:
        stored = connection.execute(text("SELECT number, state::text FROM trials ORDER BY trial_id")).all()
    assert stored == [(number, "COMPLETE") for number in range(2000)], "in the order of their ids, as Optuna counts"


def test_a_start_that_is_repeated_after_a_lost_acknowledgement_finds_itself(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    candidate = ledger.look(ticket)
    first = ledger.start_at(candidate, ANNA, point(0.5))
    assert ledger.start_at(candidate, ANNA, point(0.75)) == first, "with the parameters that are stored"
    assert len(ledger.optuna().trials) == 1
    other_slot = Holder(worker_id=ANNA.worker_id, host=ANNA.host, pid=99)
    assert ledger.start_at(candidate, other_slot) is StartRefusal.NOT_AVAILABLE


def test_a_duplicate_message_finds_nothing_to_look_at(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    ledger.start(ticket)
    assert ledger.attempts.look(ticket) is None
    assert ledger.attempts.look(12345) is None


def test_a_message_for_a_paused_study_puts_the_ticket_back_to_waiting(ledger: Ledger) -> None:
    study = ledger.study()
    (ticket,) = ledger.control.dispatch(study.id, 1)
    assert ledger.studies.pause(study.id) is True
    assert ledger.try_start(ticket) is StartRefusal.PAUSED
    assert ledger.state(ticket) == TicketState.WAITING
    assert ledger.studies.resume(study.id) is True
    assert ledger.control.dispatch(study.id, 1) == {ticket: 0}, "not tried yet"


def test_a_point_for_an_older_specification_is_not_started(ledger: Ledger) -> None:
    study = ledger.study(2)
    first, second = ledger.tickets(study)
    candidate = ledger.look(first)
    ledger.studies.extend(study.id, {**SPEC, "max_attempts": 5}, n_trials=2)
    assert ledger.start_at(candidate) is StartRefusal.CHANGED
    assert ledger.start(first).spec == {**SPEC, "max_attempts": 5}
    candidate = ledger.look(second)
    ledger.run(second, RELEASED)
    assert ledger.start_at(candidate) is StartRefusal.NOT_AVAILABLE


def test_a_point_for_an_older_attempt_is_not_started(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    candidate = ledger.look(ticket)
    ledger.finish(ledger.start(ticket), RELEASED, Disposition.RELEASE)
    assert ledger.start_at(candidate, BERT) is StartRefusal.CHANGED, "it must repeat that attempt's parameters"


def test_no_trial_starts_once_a_limit_is_met_though_its_ticket_is_queued_still(ledger: Ledger) -> None:
    study = ledger.study(2)
    (first, second) = ledger.control.dispatch(study.id, 2)
    lease = ledger.start(first)
    with ledger.database.transaction() as connection:  # as by a stop that has dropped the first thousands only
        connection.execute(update(studies).where(studies.c.id == study.id).values(stop_reason="target_value"))

    assert ledger.try_start(second) == StartRefusal.NOT_AVAILABLE

    assert ledger.state(second) == TicketState.QUEUED
    ledger.finish(lease)
    assert ledger.state(first) == TicketState.CLOSED


def test_a_study_that_was_deleted_in_optuna_is_refused_as_that(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    candidate = ledger.look(ticket)
    optuna.delete_study(study_name="digits", storage=ledger.database.url)
    assert ledger.start_at(candidate) is StartRefusal.STUDY_DELETED
    optuna.create_study(study_name="digits", storage=ledger.database.url)
    assert ledger.try_start(ticket) is StartRefusal.STUDY_DELETED, "a new one of its name is another study"


# --- Enqueued trials


def test_an_enqueued_trial_becomes_the_attempts_trial(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    ledger.optuna().enqueue_trial({"x": 7.0, "other": "text"}, user_attrs={"who": "a person"})
    candidate = ledger.look(ticket)
    assert candidate.waiting is not None
    assert (candidate.waiting.number, candidate.waiting.fixed) == (0, {"x": 7.0, "other": "text"})

    lease = ledger.start_at(candidate, ANNA, point(7.0, waiting_trial_id=candidate.waiting.trial_id))

    assert isinstance(lease, Lease) and lease.trial_number == 0
    trial = ledger.trial(lease)
    assert (trial.state, trial.params) == (TrialState.RUNNING, {"x": 7.0})
    assert trial.user_attrs == {"who": "a person", "highnoon:ticket": ticket, "highnoon:attempt": 1}


def test_an_enqueued_trial_that_somebody_else_took_is_sampled_again(ledger: Ledger) -> None:
    first, second = ledger.tickets(ledger.study(2))
    ledger.optuna().enqueue_trial({"x": 7.0})
    candidates = [ledger.look(ticket) for ticket in (first, second)]
    (waiting,) = {candidate.waiting.trial_id for candidate in candidates if candidate.waiting}
    assert isinstance(ledger.start_at(candidates[0], ANNA, point(7.0, waiting_trial_id=waiting)), Lease)
    refused = ledger.start_at(candidates[1], BERT, point(7.0, waiting_trial_id=waiting))
    assert refused is StartRefusal.CHANGED
    assert ledger.look(second).waiting is None


def test_a_clone_by_optunas_retry_callback_brings_its_parameters(ledger: Ledger) -> None:
    first, second = ledger.tickets(ledger.study(2))
    ledger.run(first, FAILED)
    RetryHeartbeatStaleTrialCallback()(ledger.optuna(), ledger.optuna().get_trials()[0])
    candidate = ledger.look(second)
    assert candidate.waiting is not None and candidate.waiting.fixed == {"x": 0.5}
    lease = ledger.start_at(candidate, BERT, point(0.5, waiting_trial_id=candidate.waiting.trial_id))
    assert isinstance(lease, Lease)
    assert ledger.trial(lease).user_attrs["highnoon:ticket"] == second
    ledger.finish(lease)
    assert ledger.trial(lease).user_attrs["highnoon:ending"] == "completed"


# --- Renew and report


def test_renew_extends_the_lease_and_writes_progress_and_reports(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    ledger.expire(lease)
    assert [expired.ticket_id for expired in ledger.snapshot.expiring(within_s=0.0)] == [ticket]

    progress = Progress(step=2**40, rss_bytes=1024)
    is_cancelled = ledger.attempts.renew(lease, progress, [Report(step=1, value=0.5)])

    assert not is_cancelled, "an expired lease that was not reaped can be renewed"
    assert ledger.snapshot.expiring(within_s=0.0) == []
    assert ledger.trial(lease).intermediate_values == {1: 0.5}
    with ledger.database.transaction() as connection:
        assert connection.execute(select(tickets.c.step, tickets.c.rss_bytes)).one() == (2**40, 1024)


def test_the_first_report_of_a_step_stays_and_each_kind_of_number_is_stored_as_optuna_does(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    values = [(1, 0.1), (1, 0.9), (2, math.inf), (3, -math.inf), (4, math.nan), (5, 1e-320), (2, 7.0)]
    ledger.attempts.add_reports(lease, [Report(step=step, value=value) for step, value in values])
    ledger.attempts.add_reports(lease, [Report(step=1, value=5.0)])
    ledger.attempts.add_reports(lease, [])
    found = ledger.trial(lease).intermediate_values
    assert math.isnan(found.pop(4))
    assert found == {1: 0.1, 2: math.inf, 3: -math.inf, 5: 1e-320}


def test_cancel_reaches_the_holder_by_its_renewal(ledger: Ledger) -> None:
    study = ledger.study(3)
    running, queued, waiting = ledger.tickets(study)
    ledger.control.dispatch(study.id, 2)
    lease = ledger.start(running)
    candidate = ledger.look(queued)
    assert ledger.studies.cancel(study.id) is True
    states = [ledger.state(ticket) for ticket in (running, queued, waiting)]
    assert states == [TicketState.RUNNING, TicketState.CANCELLED, TicketState.CANCELLED]
    assert ledger.attempts.renew(lease, Progress())
    assert ledger.start_at(candidate, BERT) is StartRefusal.NOT_AVAILABLE
    ledger.finish(lease, Outcome(ending=Ending.CANCELLED, cause="cancelled"))
    assert ledger.trial(lease).state is TrialState.FAIL
    assert ledger.studies.cancel(study.id) is False


# --- Finish


@pytest.mark.parametrize(("constraint", "written"), [(None, {}), (0.5, {"constraints:because": 0.5})])
def test_a_stop_for_another_reason_than_memory_tells_the_sampler_nothing_of_memory(
    ledger: Ledger, constraint: float | None, written: dict[str, float]
) -> None:
    outcome = Outcome(ending=Ending.STOPPED, cause="because", constraint=constraint)
    lease = ledger.start(ledger.tickets(ledger.study())[0])
    ledger.finish(lease, outcome)
    attrs = ledger.trial(lease).system_attrs
    assert {key: value for key, value in attrs.items() if key.startswith("constraints:")} == written


@pytest.mark.parametrize("ending", list(Ending))
def test_finish_writes_each_ending_to_both_sides(ledger: Ledger, ending: Ending) -> None:
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    value = 0.25 if ending is Ending.COMPLETED else None
    outcome = Outcome(
        ending=ending, value=value, cause="swap", message="in \0 words \ud800", traceback="x" * 20_000,
        exit_status=1, signal="SIGKILL", peak_rss_bytes=2**40, log_tail="the \0 end", memory=USED,
    )  # fmt: skip
    lease = ledger.start(ticket)

    assert ledger.finish(lease, outcome, reports=[Report(step=3, value=0.5)]) is None

    trial = ledger.trial(lease)
    trial._validate()
    assert trial.state.name == OPTUNA_STATE[ending]
    assert trial.value == (0.5 if trial.state is TrialState.PRUNED else value), "a pruned one takes its last report"
    assert trial.intermediate_values == {3: 0.5}
    attrs = trial.user_attrs
    assert (attrs["highnoon:ending"], attrs["highnoon:cause"]) == (ending, "swap")
    assert 0 < len(attrs["highnoon:traceback"]) <= 8_192
    assert trial.datetime_complete is not None and trial.datetime_start is not None
    assert trial.datetime_complete >= trial.datetime_start
    assert ("constraints:memory" in trial.system_attrs) is (ending is Ending.STOPPED)

    (attempt,) = ledger.studies.attempts(study.id)
    assert (attempt.ending, attempt.cause, attempt.exit_status, attempt.signal) == (ending, "swap", 1, "SIGKILL")
    assert (attempt.peak_rss_bytes, attempt.memory, attempt.foreign_ending) == (2**40, USED, None)
    assert (attempt.message, attempt.log_tail) == ("in \ufffd words ?", "the \ufffd end")
    with ledger.database.transaction() as connection:
        row = connection.execute(select(tickets)).mappings().one()
    assert (row["state"], row["ending"], row["value"]) == (TicketState.CLOSED, ending, value)
    assert row["closed_at"] == attempt.ended_at or row["closed_at"] <= attempt.ended_at
    assert Outcome.from_json({**row["outcome"], "memory": None}).traceback == outcome.traceback
    assert "log_tail" not in row["outcome"], "the attempt has it"


@pytest.mark.parametrize(
    ("given", "last", "value"),
    [(0.1, 0.5, 0.1), (None, 0.5, 0.5), (None, math.inf, math.inf), (None, math.nan, None), (None, None, None)],
)
def test_a_pruned_trial_has_the_given_value_or_its_last_report(
    ledger: Ledger, given: float | None, last: float | None, value: float | None
) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    reports = [] if last is None else [Report(step=2, value=last), Report(step=1, value=7.0)]
    ledger.finish(lease, Outcome(ending=Ending.PRUNED, value=given), reports=reports)
    assert ledger.trial(lease).value == value


@pytest.mark.parametrize("value", [math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 0.1 + 0.2])
def test_a_value_reads_back_as_it_was(ledger: Ledger, value: float) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    ledger.finish(lease, Outcome(ending=Ending.COMPLETED, value=value))
    assert ledger.trial(lease).value == value
    with ledger.database.transaction() as connection:
        assert connection.scalar(select(tickets.c.value)) == value


@pytest.mark.parametrize("disposition", list(Disposition))
def test_a_finish_that_is_repeated_finds_its_own_first_try(ledger: Ledger, disposition: Disposition) -> None:
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    lease = ledger.start(ticket)
    for _ in range(3):
        ledger.finish(lease, KILLED, disposition, token="one decision")
    closes = disposition is Disposition.CLOSE
    assert ledger.state(ticket) == (TicketState.CLOSED if closes else TicketState.WAITING)
    (attempt,) = ledger.studies.attempts(study.id)
    assert attempt.ending is Ending.KILLED
    if not closes:
        assert ledger.look(ticket).infrastructure_failures == (1 if disposition is Disposition.RETRY else 0)
        other = ledger.start(ticket, BERT)
        ledger.finish(lease, KILLED, disposition, token="one decision")
        assert not ledger.attempts.renew(other, Progress()), "the present holder is undisturbed"


def test_another_decision_about_a_finished_attempt_is_refused(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.run(ticket)
    with pytest.raises(LeaseLost):
        ledger.finish(lease, FAILED)
    assert ledger.trial(lease).value == DONE.value


def test_a_drain_charges_nothing_an_infrastructure_failure_and_an_error_are_counted_apart(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    for outcome, disposition in (
        (RELEASED, Disposition.RELEASE), (KILLED, Disposition.RETRY), (FAILED, Disposition.RETRY)
    ):  # fmt: skip
        ledger.finish(ledger.start(ticket), outcome, disposition)
    candidate = ledger.look(ticket)
    assert (candidate.attempt, candidate.infrastructure_failures, candidate.errors) == (3, 1, 1)
    assert {trial.state for trial in ledger.optuna().trials} == {TrialState.FAIL}


def test_a_retry_waits_its_delay(ledger: Ledger) -> None:
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    ledger.finish(ledger.start(ticket), KILLED, Disposition.RETRY, delay_s=60.0)
    assert ledger.attempts.look(ticket) is None
    assert ledger.control.dispatch(study.id, 5) == {}
    ledger.skip_delay(ticket)
    assert ledger.start(ticket).attempt == 2


def test_the_next_attempt_repeats_the_parameters_and_sees_no_enqueued_trial(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    first = ledger.start(ticket, new=point(0.5))
    ledger.optuna().enqueue_trial({"x": 7.0})
    ledger.finish(first, KILLED, Disposition.RETRY)
    candidate = ledger.look(ticket)
    assert candidate.before is not None and candidate.waiting is None
    assert (candidate.before.params, candidate.before.trial_number) == ({"x": 0.5}, 0)


def test_an_attempt_that_a_neighbour_ended_must_be_alone_from_then_on(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    assert not ledger.look(ticket).must_be_alone
    squeezed = Outcome(ending=Ending.KILLED, cause="oom_neighbour", memory=USED)
    ledger.finish(ledger.start(ticket), squeezed, Disposition.RETRY)
    second = ledger.start(ticket, BERT)
    assert second.must_be_alone
    ledger.finish(second, Outcome(ending=Ending.LOST, cause="lost"), Disposition.RETRY)
    assert ledger.start(ticket).must_be_alone, "also after an attempt that ended otherwise"


# --- Interference


@pytest.mark.parametrize(
    ("theirs", "value", "recorded"),
    [
        (TrialState.COMPLETE, 9.0, "COMPLETE 9"),
        (TrialState.COMPLETE, 0.25, None),
        (TrialState.PRUNED, None, "PRUNED"),
        (TrialState.FAIL, None, "FAIL"),
    ],
)
def test_a_trial_that_somebody_else_ended_stands_in_optuna_and_ours_in_the_ticket(
    ledger: Ledger, theirs: TrialState, value: float | None, recorded: str | None
) -> None:
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    lease = ledger.start(ticket)
    ledger.optuna().tell(lease.trial_number, value, state=theirs)
    before = ledger.trial(lease)
    ledger.attempts.renew(lease, Progress(), [Report(step=1, value=1.0)])
    ledger.attempts.add_reports(lease, [Report(step=2, value=1.0)])

    answers = [ledger.finish(lease, DONE, token="t", reports=[Report(step=1, value=1.0)]) for _ in range(2)]

    assert answers == [recorded, recorded]
    assert ledger.trial(lease) == before, "a trial that has ended is never changed"
    (attempt,) = ledger.studies.attempts(study.id)
    assert (attempt.ending, attempt.foreign_ending) == (Ending.COMPLETED, recorded)
    assert LedgerQueries(ledger.database).progress_of(study).best_value == 0.25


def test_a_trial_of_a_study_that_was_deleted_in_optuna_still_closes_its_ticket(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    optuna.delete_study(study_name="digits", storage=ledger.database.url)
    assert not ledger.attempts.renew(lease, Progress(), [Report(step=1, value=1.0)])
    assert ledger.finish(lease) == "deleted"
    assert ledger.state(ticket) == TicketState.CLOSED


def test_an_ordinary_script_numbers_its_trials_among_ours(ledger: Ledger) -> None:
    study = ledger.study(20)
    queue = iter(ledger.tickets(study))

    def ours() -> list[int]:
        return [ledger.start(next(queue)).trial_number for _ in range(20)]

    def theirs() -> list[int]:
        script = ledger.optuna()
        return [script.ask().number for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(ours), pool.submit(theirs)]
        numbers = [number for part in parts for number in part.result()]
    assert sorted(numbers) == list(range(40))


def test_no_lock_of_a_study_stands_in_the_way_of_finish_and_renew(ledger: Ledger) -> None:
    first, second = ledger.tickets(ledger.study(2))
    lease = ledger.start(first)
    address = ledger.database.url.replace("+psycopg2", "", 1)
    with closing(psycopg2.connect(address)) as frozen, frozen.cursor() as cursor:
        cursor.execute("SELECT * FROM studies FOR UPDATE; SELECT * FROM hn_studies FOR UPDATE")
        assert not ledger.attempts.renew(lease, Progress(), [Report(step=1, value=0.5)])
        ledger.finish(lease)
        hurried = make_url(ledger.database.url).update_query_dict({"options": "-c lock_timeout=100ms"})
        with closing(Database(hurried.render_as_string(hide_password=False))) as database:
            candidate = ledger.look(second)
            with pytest.raises(ServiceUnavailable, match="lock timeout"):
                Attempts(database).start(candidate, point(), ANNA, ttl_s=30.0, log_path="log")
    assert ledger.start(second).trial_number == 1


# --- The dead


def test_a_zombie_writes_nothing_and_is_never_taken_for_its_own_first_try(ledger: Ledger) -> None:
    # Given an attempt whose lease ran out and was reaped
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    zombie = ledger.start(ticket)
    ledger.expire(zombie)
    reaped = ledger.attempts.reap(ticket, zombie.attempt, message="its lease ran out", only_expired=True)
    assert reaped is Disposition.RETRY
    failed = ledger.trial(zombie)
    assert (failed.state, failed.user_attrs["highnoon:ending"]) == (TrialState.FAIL, "lost")

    def wakes() -> None:
        for act in (
            lambda: ledger.attempts.renew(zombie, Progress(), [Report(step=1, value=1.0)]),
            lambda: ledger.attempts.add_reports(zombie, [Report(step=1, value=1.0)]),
            lambda: ledger.finish(zombie, DONE),
            lambda: ledger.finish(zombie, RELEASED, Disposition.RELEASE),
        ):
            with pytest.raises(LeaseLost):
                act()
        assert ledger.trial(zombie) == failed

    # When it wakes, before and after another worker has the ticket, then nothing that it writes arrives
    wakes()
    ledger.skip_delay(ticket)
    holder = ledger.start(ticket, BERT)
    wakes()
    assert (holder.attempt, holder.infrastructure_failures) == (2, 1)
    ledger.finish(holder)
    wakes()
    assert ledger.state(ticket) == TicketState.CLOSED
    assert [attempt.ending for attempt in ledger.studies.attempts(study.id)] == [Ending.LOST, Ending.COMPLETED]


def test_an_expired_lease_is_reaped_once_and_a_living_one_not(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket)
    assert ledger.attempts.reap(ticket, 1, message="?", only_expired=True) is None
    ledger.expire(lease)
    with ThreadPoolExecutor(4) as pool:
        reap = lambda _: ledger.attempts.reap(ticket, 1, message="gone", only_expired=True)  # noqa: E731
        assert sorted(map(str, pool.map(reap, range(4)))) == ["None", "None", "None", "retry"]
    assert ledger.state(ticket) == TicketState.WAITING


def test_only_a_repeated_loss_delays_the_next_attempt(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    ledger.attempts.reap(ticket, ledger.start(ticket).attempt, message="gone", only_expired=False)
    ledger.attempts.reap(ticket, ledger.start(ticket).attempt, message="gone again", only_expired=False)
    assert ledger.attempts.look(ticket) is None, "a bad node must not use all attempts in a second"
    assert [retry_delay_s(failures) for failures in range(4)] == [0.0, 2.0, 4.0, 8.0]


def test_no_lost_attempt_delays_the_next_one_for_more_than_five_minutes(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study(max_attempts=10_000))
    waits = select(tickets.c.not_before - db_now()).where(tickets.c.id == ticket)
    for failures in (8, 9, 5000):
        with ledger.database.transaction() as connection:
            changed = {"infrastructure_failures": failures, "not_before": 0.0}
            connection.execute(update(tickets).where(tickets.c.id == ticket).values(**changed))
        ledger.attempts.reap(ticket, ledger.start(ticket).attempt, message="gone", only_expired=False)
        with ledger.database.transaction() as connection:
            assert connection.scalar(waits) == pytest.approx(retry_delay_s(failures), abs=10.0)


def test_held_finds_the_attempt_of_this_holder_alone(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    assert ledger.attempts.held(ticket, worker_id="anna", pid=1) is None
    lease = ledger.start(ticket, ANNA)
    assert ledger.attempts.held(ticket, worker_id="anna", pid=1) == lease.attempt
    assert ledger.attempts.held(ticket, worker_id="anna", pid=2) is None
    assert ledger.attempts.held(ticket, worker_id="bert", pid=1) is None
    ledger.finish(lease)
    assert ledger.attempts.held(ticket, worker_id="anna", pid=1) is None


def test_the_last_loss_closes_the_ticket_as_lost(ledger: Ledger) -> None:
    study = ledger.study()
    (ticket,) = ledger.tickets(study)
    dispositions = []
    for _ in range(3):
        ledger.skip_delay(ticket)
        lease = ledger.start(ticket)
        dispositions.append(ledger.attempts.reap(ticket, lease.attempt, message="died", only_expired=False))
    assert dispositions == [Disposition.RETRY, Disposition.RETRY, Disposition.CLOSE]
    assert ledger.state(ticket) == TicketState.CLOSED
    assert ledger.studies.counts(study.id).by_ending == {Ending.LOST: 1}
    assert {trial.state for trial in ledger.optuna().trials} == {TrialState.FAIL}


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_cancelled_ticket_whose_holder_died_is_not_tried_again(ledger: Ledger, max_attempts: int) -> None:
    study = ledger.study(max_attempts=max_attempts)
    (ticket,) = ledger.tickets(study)
    lease = ledger.start(ticket)
    ledger.studies.cancel(study.id)
    ledger.attempts.reap(ticket, lease.attempt, message="died", only_expired=False)
    assert ledger.state(ticket) == TicketState.CANCELLED and not ledger.studies.counts(study.id).closed
    trial = ledger.trial(lease)
    assert (trial.state, trial.user_attrs["highnoon:cause"]) == (TrialState.FAIL, "cancelled")


@pytest.mark.parametrize("way", [Disposition.RELEASE, Disposition.RETRY, "reap"])
def test_a_trial_that_a_person_stops_counts_though_its_node_dies_or_drains_first(ledger: Ledger, way: str) -> None:
    study = ledger.study(2)
    first, second = ledger.tickets(study)
    ledger.run(first)
    lease = ledger.start(second)
    assert ledger.studies.stop_trial(study.id, lease.trial_number)
    if way == "reap":
        closed = ledger.attempts.reap(second, lease.attempt, message="died", only_expired=False)
        assert closed is Disposition.CLOSE
    else:
        ledger.finish(lease, RELEASED if way == Disposition.RELEASE else KILLED, Disposition(way))

    counts = ledger.studies.counts(study.id)
    assert (counts.closed, counts.by_ending) == (2, {Ending.COMPLETED: 1, Ending.CANCELLED: 1})
    assert ledger.trial(lease).user_attrs["highnoon:cause"] == "cancelled"
    # More trials are new ones: the stopped point is not run again
    ledger.studies.add_trials(study.id, 1, at_most=10)
    (third,) = set(ledger.tickets(study)) - {first, second}
    assert ledger.look(third).before is None
    assert ledger.state(second) == TicketState.CLOSED


def test_a_declined_ticket_waits_again_and_a_running_one_is_not_touched(ledger: Ledger) -> None:
    study = ledger.study(2)
    first, second = ledger.control.dispatch(study.id, 2)
    ledger.start(second)
    for ticket in (first, second):
        ledger.attempts.decline(ticket)
    assert [ledger.state(ticket) for ticket in (first, second)] == [TicketState.WAITING, TicketState.RUNNING]


def test_an_exhausted_space_stops_its_study(ledger: Ledger) -> None:
    study = ledger.study(3)
    first, second, third = ledger.tickets(study)
    lease, candidate = ledger.start(first), ledger.look(second)
    ledger.studies.add_trials(study.id, 1, at_most=10)
    ledger.attempts.exhaust(candidate)
    assert ledger.state(second) == TicketState.WAITING, "it was changed meanwhile"
    ledger.attempts.exhaust(ledger.look(second))
    assert ledger.studies.get("digits").stop_reason == "exhausted"
    # A million tickets would take longer than a worker's statement may: the coordinator drops them
    assert [ledger.state(ticket) for ticket in (first, second, third)] == ["running", "waiting", "waiting"]
    assert ledger.try_start(third) is StartRefusal.NOT_AVAILABLE
    (stop,) = plan(Snapshot(steady_s=0.0, loads=tuple(ledger.snapshot.loads())), Settings())
    assert isinstance(stop, Stop) and stop.reason == "exhausted"
    assert ledger.control.stop(study.id, stop.reason, spec_version=stop.spec_version)
    assert [ledger.state(ticket) for ticket in (first, second, third)] == ["running", "cancelled", "cancelled"]
    ledger.finish(lease)
    assert ledger.control.finish(study.id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials")


# --- One study's fault


def test_rows_of_a_newer_version_are_ignored_and_concern_no_other_study(ledger: Ledger) -> None:
    # Given a study with an ending, an outcome and a specification that this version does not know
    odd, other = ledger.study(2), ledger.study(name="other")
    first, second = ledger.tickets(odd)
    ledger.run(first)
    with ledger.database.transaction() as connection:
        unknown = {"ending": "evaporated", "outcome": {"ending": "evaporated", "of": "a newer version"}}
        connection.execute(update(tickets).where(tickets.c.id == first).values(**unknown))
        connection.execute(update(attempts).values(ending="evaporated"))
    ledger.studies.extend(odd.id, {**SPEC, "a key of tomorrow": [1]}, n_trials=2)

    # Then all that knows it is read
    counts = ledger.studies.counts(odd.id)
    assert (counts.closed, counts.by_ending) == (1, {})
    (attempt,) = ledger.studies.attempts(odd.id)
    assert attempt.ending is None and attempt.ended_at is not None
    assert ledger.start(second).attempt == 1
    ledger.run(*ledger.tickets(other))


def test_a_study_of_a_newer_version_can_be_read(ledger: Ledger) -> None:
    spec = {"name": "digits", "objective": "o:n", "n_trials": 1, "search_space": {"x": ["uniform", 0.0, 1.0]}}
    submission = submit(StudySpec.from_json(spec), ledger.access)
    ledger.run(*ledger.tickets(submission.record))
    newer = {**submission.record.spec, "a key of tomorrow": [1]}
    ledger.studies.extend(submission.record.id, newer, n_trials=1)
    (trial,) = ledger.access.optuna(ledger.studies.get("digits")).trials()
    assert trial.value == DONE.value


def test_numbers_beyond_an_integer_of_the_database_are_no_fault(ledger: Ledger) -> None:
    study = ledger.study(2, max_attempts=10**10, keep_checkpoints=10**10)
    first, second = ledger.tickets(study)
    lease = ledger.start(first)
    assert ledger.attempts.reap(first, lease.attempt, message="died", only_expired=False) is Disposition.RETRY
    lease = ledger.start(second)
    ledger.attempts.keep_checkpoint(lease, Checkpoint(id="c", attempt=1, size_bytes=1, sha256=""))
    ledger.finish(lease)
    (kept,) = StoredFiles(ledger.database).keeping_checkpoints()
    assert kept.most == 2**31 - 1


def test_a_specification_that_cannot_be_read_fails_its_own_reaping_alone(ledger: Ledger) -> None:
    odd, other = ledger.study(max_attempts="many"), ledger.study(name="other")
    leases = [ledger.start(*ledger.tickets(study)) for study in (odd, other)]
    with pytest.raises(Exception, match="many"):
        ledger.attempts.reap(leases[0].ticket_id, 1, message="died", only_expired=False)
    reaped = ledger.attempts.reap(leases[1].ticket_id, 1, message="died", only_expired=False)
    assert reaped is Disposition.RETRY


# --- What it costs


@pytest.fixture
def busy(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # On a slow machine the connection would count as idle, and be checked, between two statements.
    monkeypatch.setattr(connections, "_IDLE_S", 60.0)
    with counted(ledger.database.url) as wire:
        access = Access(wire.url)
        yield access, wire
        access.close()


def test_a_trial_of_ten_parameters_costs_six_round_trips_and_three_commits(busy: Any) -> None:
    """TPE and two reports; 37 and 7 at commit 9d00554, counted in the same way."""
    access, wire = busy
    space = {f"p{number}": ["uniform", 0.0, 1.0] for number in range(10)}
    spec = StudySpec.from_json(
        {"name": "ten", "objective": "o:n", "seed": 1, "n_trials": 30, "search_space": space, "pruner": "none"}
    )
    study = access.optuna(submit(spec, access).record)
    mine = Attempts(access.database)
    with access.database.transaction() as connection:
        waiting = list(connection.scalars(select(tickets.c.id).order_by(tickets.c.ordinal)))
    for number, ticket in enumerate(waiting[:15]):
        wire.clear()
        candidate = mine.look(ticket)
        assert candidate is not None
        new = study.choose(ordinal=candidate.ordinal, waiting=candidate.waiting, before=candidate.before)
        lease = mine.start(candidate, new, ANNA, ttl_s=30.0, log_path="x")
        assert isinstance(lease, Lease)
        mine.add_reports(lease, [Report(step=0, value=0.5), Report(step=1, value=0.4)])
        outcome = Outcome(ending=Ending.COMPLETED, value=float(number))
        mine.finish(lease, outcome, disposition=Disposition.CLOSE, token="t")
    assert len(wire.statements) <= 6, "\n".join(wire.statements)
    assert wire.commits <= 3


def test_a_renewal_is_one_round_trip(busy: Any, ledger: Ledger) -> None:
    access, wire = busy
    lease = ledger.start(*ledger.tickets(ledger.study()))
    mine = Attempts(access.database)
    mine.renew(lease, Progress())
    wire.clear()
    mine.renew(lease, Progress(step=1), [Report(step=step, value=0.5) for step in range(20)])
    assert len(wire.statements) == 1, json.dumps(wire.statements)


# --- Rights


def test_the_workers_role_runs_whole_attempts_and_may_neither_delete_nor_alter(ledger: Ledger) -> None:
    """With the rights of deploy/postgres/roles.sql and none beside."""
    study = ledger.study(2)
    first, second = ledger.tickets(study)
    with ledger.database.transaction() as connection:
        for statement in (
            "CREATE ROLE hand LOGIN PASSWORD 'secret'",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC",
            "GRANT USAGE ON SCHEMA public TO hand",
            "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO hand",
            "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO hand",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO hand",
        ):
            connection.execute(text(statement))
    address = make_url(ledger.database.url).set(username="hand", password="secret")
    database = Database(address.render_as_string(hide_password=False))
    try:
        hand = Attempts(database)
        for ticket in (first, second):
            candidate = hand.look(ticket)
            assert candidate is not None
            lease = hand.start(candidate, point(), ANNA, ttl_s=30.0, log_path="log")
            assert isinstance(lease, Lease)
            hand.renew(lease, Progress(), [Report(step=1, value=0.5)])
            if ticket == first:
                hand.finish(lease, DONE, disposition=Disposition.CLOSE, token="t")
            else:
                hand.reap(ticket, 1, message="died", only_expired=False)
        for forbidden in ("DELETE FROM hn_tickets", "DROP FUNCTION hn_now_1()", "ALTER TABLE trials ADD COLUMN x int"):
            with pytest.raises(ServiceRefused), database.transaction() as connection:
                connection.execute(text(forbidden))
    finally:
        database.close()
        with ledger.database.transaction() as connection:
            connection.execute(text("DROP OWNED BY hand; DROP ROLE hand"))
