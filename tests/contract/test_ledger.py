"""The ledger: studies and their tickets as people and the coordinator change them, nodes, bundles, and the schema."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import insert, make_url, select, text, update
from sqlalchemy.exc import IntegrityError

from highnoon.shared.domain.errors import (
    InvalidInput,
    SchemaMismatch,
    ServiceRefused,
    ServiceUnavailable,
    StudyConflict,
    UnknownStudy,
)
from highnoon.shared.domain.lease import Disposition
from highnoon.shared.domain.states import Ending, StudyState, TicketState, WorkerState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store import steering
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.database import Database
from highnoon.shared.store.node_queries import NodeQueries, Streak
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.schema import bundles as bundle_rows
from highnoon.shared.store.schema import db_now, studies, tickets
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import submit
from tests.ledger import ANNA, BERT, DONE, FAILED, KILLED, RELEASED, SPEC, Ledger, point


def close_study(ledger: Ledger, study: StudyRecord) -> bool:
    return ledger.control.finish(study.id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials")


def test_dispatch_takes_the_lowest_ordinals_and_never_twice(ledger: Ledger) -> None:
    study = ledger.study(5)
    all_tickets = ledger.tickets(study)
    assert [*ledger.control.dispatch(study.id, 2)] == all_tickets[:2]
    assert [*ledger.control.dispatch(study.id, 9)] == all_tickets[2:]
    assert ledger.control.dispatch(study.id, 9) == {}
    assert [queued.ticket_id for queued in ledger.snapshot.queued()] == all_tickets


def test_two_coordinators_that_dispatch_at_once_share_the_tickets(ledger: Ledger) -> None:
    study = ledger.study(60)
    start = threading.Barrier(4)

    def dispatch(_: int) -> list[int]:
        start.wait()
        return [*ledger.control.dispatch(study.id, 20)]

    with ThreadPoolExecutor(4) as pool:
        taken = [ticket for share in pool.map(dispatch, range(4)) for ticket in share]

    assert len(taken) == len(set(taken)), "a ticket was dispatched twice"


def test_more_trials_get_further_ordinals_and_reopen_the_study(ledger: Ledger) -> None:
    study = ledger.study(2)
    for ticket in ledger.tickets(study):
        ledger.run(ticket)
    assert close_study(ledger, study)
    assert ledger.studies.extend(study.id, SPEC, n_trials=5) == 3
    assert ledger.studies.extend(study.id, SPEC, n_trials=5) == 0
    assert ledger.studies.get("digits").state is StudyState.RUNNING
    counts = ledger.studies.counts(study.id)
    assert (counts.total, counts.closed) == (5, 2)
    assert ledger.start(ledger.tickets(study)[-1]).ordinal == 4


def test_more_trials_first_revive_the_tickets_that_a_limit_had_dropped(ledger: Ledger) -> None:
    study = ledger.study(4)
    (first,) = ledger.control.dispatch(study.id, 1)
    ledger.run(first, FAILED)
    assert ledger.snapshot.recent_endings({study.id: 5}) == {study.id: [Ending.FAILED]}
    version = ledger.studies.get("digits").spec_version
    assert ledger.control.stop(study.id, "failures_in_a_row", spec_version=version)
    assert [ledger.state(ticket) for ticket in ledger.tickets(study)] == ["closed", *["cancelled"] * 3]
    assert close_study(ledger, study)

    assert ledger.studies.extend(study.id, SPEC, n_trials=5) == 4
    assert [ledger.start(ticket).ordinal for ticket in ledger.tickets(study)[1:]] == [1, 2, 3, 4]
    # The limits that ended it begin again, and what was planned before applies no more
    record = ledger.studies.get("digits")
    assert (record.state, record.stop_reason, record.started_at) == (StudyState.RUNNING, None, None)
    assert not ledger.control.stop(study.id, "failures_in_a_row", spec_version=version)
    assert ledger.snapshot.recent_endings({study.id: 5})[study.id] == []


def test_more_trials_begin_the_clock_again_also_while_the_last_one_of_a_limit_still_runs(ledger: Ledger) -> None:
    study = ledger.study(2, timeout=100.0)
    ledger.start(*ledger.control.dispatch(study.id, 1))
    assert ledger.control.stop(study.id, "timeout", spec_version=ledger.studies.get("digits").spec_version)

    assert ledger.studies.add_trials(study.id, 3, at_most=100) == 3

    # Otherwise the time that was over would drop them with the next tick
    (load,) = ledger.snapshot.loads()
    assert (load.age_s, load.running, load.waiting, load.study.stop_reason) == (0.0, 1, True, None)


def test_the_same_study_again_does_not_revive_one_that_a_limit_is_ending(ledger: Ledger) -> None:
    space = {"x": ["uniform", 0.0, 1.0]}
    spec = StudySpec.from_json({"name": "digits", "objective": "a:b", "search_space": space, "timeout": 100.0})
    study = submit(spec, ledger.access).record
    ledger.start(*ledger.control.dispatch(study.id, 1))
    assert ledger.control.stop(study.id, "timeout", spec_version=study.spec_version)

    assert submit(spec, ledger.access).added == 0
    assert ledger.studies.get("digits").stop_reason == "timeout"


def spec_of(**keys: object) -> StudySpec:
    space = {"x": ["uniform", 0.0, 1.0]}
    return StudySpec.from_json({"name": "digits", "objective": "a:b", "search_space": space, "n_trials": 3, **keys})


def test_the_same_study_with_other_resources_moves_to_their_queue_with_what_was_sent(ledger: Ledger) -> None:
    # Given a study with a trial that runs, and one whose message was sent
    study = submit(spec_of(), ledger.access).record
    running, sent = ledger.control.dispatch(study.id, 2)
    lease = ledger.start(running)

    # When it is submitted for other nodes
    moved = submit(spec_of(resources="gpu"), ledger.access).record

    # Then what has not begun waits to be sent to their queue, and what runs goes on
    assert (moved.queue, moved.spec["resources"]) == ("gpu", "gpu")
    assert [ledger.state(ticket) for ticket in ledger.tickets(study)] == ["running", "waiting", "waiting"]
    ledger.finish(lease)
    assert [*ledger.control.dispatch(study.id, 1)] == [sent]
    # And a submission without a change leaves it there
    submit(spec_of(resources="gpu"), ledger.access)
    assert ledger.state(sent) == TicketState.QUEUED


def test_the_same_study_again_keeps_a_share_that_was_set_unless_it_names_another_one(ledger: Ledger) -> None:
    def share() -> tuple[object, object]:
        spec = ledger.studies.get("digits").spec
        return spec["priority"], spec["max_running"]

    submit(spec_of(), ledger.access)
    steering.set_share(ledger.access, ledger.studies.get("digits"), priority=7, max_running=2)
    assert submit(spec_of(n_trials=5), ledger.access).added == 2
    assert share() == (7, 2)
    submit(spec_of(priority=3), ledger.access)
    assert share() == (3, 2)
    submit(spec_of(priority=1, max_running=None), ledger.access)
    assert share() == (1, None)


def test_additions_at_the_same_time_all_count(ledger: Ledger) -> None:
    study = ledger.study(3)
    start = threading.Barrier(4)

    def add(_: int) -> int:
        start.wait()
        return ledger.studies.add_trials(study.id, 10, at_most=1000)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(add, range(4))) == [10] * 4
    assert ledger.studies.counts(study.id).total == 43
    record = ledger.studies.get("digits")
    assert (record.spec["n_trials"], record.spec_version) == (43, 5)
    with ledger.database.transaction() as connection:
        assert list(connection.scalars(select(tickets.c.ordinal).order_by(tickets.c.ordinal))) == list(range(43))


def test_additions_stop_at_the_most_and_at_a_study_that_was_given_up(ledger: Ledger) -> None:
    study = ledger.study(3)
    assert ledger.studies.add_trials(study.id, 10, at_most=8) == 5
    assert ledger.studies.add_trials(study.id, 10, at_most=8) == 0
    ledger.run(first := ledger.tickets(study)[0], FAILED)
    assert ledger.studies.cancel(study.id)
    assert ledger.studies.add_trials(study.id, 10, at_most=80) == 0
    assert ledger.studies.retry(study.id, endings=(Ending.FAILED,)) == 0
    assert ledger.state(first) == TicketState.CLOSED
    assert ledger.studies.get("digits").state is StudyState.CANCELLING
    with pytest.raises(UnknownStudy):
        ledger.studies.add_trials(12345, 1, at_most=8)


def test_a_study_is_not_closed_over_tickets_that_are_being_added(ledger: Ledger) -> None:
    # Given a study without open tickets, to which another client is adding one
    study = ledger.study(0)
    with ledger.database.transaction() as connection:
        connection.execute(update(studies).where(studies.c.id == study.id).values(stop_reason=None))
        connection.execute(insert(tickets).values(study_id=study.id, ordinal=0))

        # Then the coordinator does not close it at the same moment, nor afterwards
        assert close_study(ledger, study) is False
    assert close_study(ledger, study) is False
    assert ledger.studies.get("digits").state is StudyState.RUNNING


def test_more_trials_and_retries_leave_a_paused_study_paused(ledger: Ledger) -> None:
    study = ledger.study(1)
    (ticket,) = ledger.tickets(study)
    ledger.run(ticket, FAILED)
    assert ledger.studies.pause(study.id)
    assert ledger.studies.extend(study.id, SPEC, n_trials=2) == 1
    assert ledger.studies.retry(study.id, endings=(Ending.FAILED,)) == 1
    assert ledger.studies.get("digits").state is StudyState.PAUSED


def test_retry_gives_failed_tickets_another_go_with_the_same_parameters(ledger: Ledger) -> None:
    study = ledger.study(2)
    good, bad = ledger.tickets(study)
    for ticket, outcome in ((good, DONE), (bad, FAILED)):
        ledger.finish(ledger.start(ticket, new=point(float(ticket))), outcome)
    assert ledger.studies.retry(study.id, endings=(Ending.FAILED,)) == 1
    again = ledger.look(bad)
    assert again.before is not None
    assert (again.attempt, again.before.params) == (1, {"x": float(bad)})
    assert ledger.start(bad).attempt == 2
    assert ledger.state(good) == TicketState.CLOSED


def test_presence(ledger: Ledger) -> None:
    ledger.nodes.enter("anna", host="node-a", pid=1, slots=2, queues=["cpu", "gpu"])
    ledger.nodes.enter("bert", host="node-b", pid=2, slots=1, queues=["cpu"])
    capacity = ledger.nodes.capacity(silent_for_s=60.0)
    assert (capacity.workers, capacity.slots) == (2, {"cpu": 3, "gpu": 2})
    assert capacity.shared == {"cpu": {"gpu": 2}, "gpu": {"cpu": 2}}
    assert ledger.nodes.beat("anna", {"cpus": 8}) is WorkerState.ACTIVE
    assert ledger.nodes.beat("anna") is WorkerState.ACTIVE
    assert ledger.nodes.beat("unknown") is None
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
    ended = [(ANNA, failed), (ANNA, DONE), (ANNA, failed), (ANNA, KILLED), (BERT, DONE), (BERT, failed), (BERT, DONE)]
    waiting = iter(ledger.tickets(study))
    for holder, outcome in ended:
        ledger.run(next(waiting), outcome, holder)
    ledger.run(ledger.tickets(other)[0], DONE, BERT)
    ledger.finish(ledger.start(next(waiting)), RELEASED, Disposition.RELEASE)
    poison = next(waiting)
    for _ in range(3):
        ledger.finish(ledger.start(poison), failed, Disposition.RETRY)
    queries, both = NodeQueries(ledger.database), [study.id, other.id]
    assert queries.failure_streaks(["anna", "bert"], both) == [
        Streak(worker_id="anna", length=3, causes={"signal": 1, "objective": 2}, others_ended=3, others_failed=1)
    ], "one ticket that fails again and again counts once"
    assert queries.failure_streaks(["anna"], both)[0].others_ended == 0, "only of nodes that are asked for"
    assert queries.failure_streaks(["anna", "bert"], [other.id]) == []
    assert not ledger.nodes.reinstate("anna"), "it is not in quarantine"
    assert ledger.nodes.move("anna", [WorkerState.ACTIVE], WorkerState.QUARANTINED, "fails alone")
    assert ledger.nodes.reinstate("anna")
    (anna, _) = ledger.nodes.workers(silent_for_s=60.0)
    assert (anna.state, anna.state_reason) == (WorkerState.ACTIVE, None)
    assert queries.failure_streaks(["anna", "bert"], both) == []


def test_an_agent_that_did_not_hear_that_it_entered_may_say_so_again(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.nodes.enter("anna", host="node-a", pid=1, slots=2, queues=["cpu"])
    assert [worker.id for worker in ledger.nodes.workers(silent_for_s=60.0)] == ["anna"]


def test_leadership_is_kept_until_it_expires_and_then_taken(ledger: Ledger) -> None:
    assert ledger.nodes.lead("one", ttl_s=60).mine
    assert ledger.nodes.lead("one", ttl_s=60).term == 1
    other = ledger.nodes.lead("two", ttl_s=60)
    assert (other.mine, other.term) == (False, 1)
    ledger.nodes.step_down("one")
    taken = ledger.nodes.lead("two", ttl_s=60)
    assert (taken.mine, taken.term) == (True, 2)


def test_another_coordinator_leads_after_the_clock_went_back(ledger: Ledger) -> None:
    ledger.own_clock()
    assert ledger.nodes.lead("gone", ttl_s=5).mine
    ledger.shift_clock(-10)
    assert not ledger.nodes.lead("new", ttl_s=5).mine, "it may be a slow one"
    ledger.shift_clock(-3600)
    assert ledger.nodes.lead("new", ttl_s=5).mine
    assert not ledger.nodes.lead("gone", ttl_s=5).mine


def test_one_name_one_study(ledger: Ledger) -> None:
    ledger.study()
    with pytest.raises(IntegrityError):
        ledger.study()
    with pytest.raises(UnknownStudy, match="nothing"):
        ledger.studies.get("nothing")
    assert len(ledger.studies.all()) == 1


def test_a_bundle_is_kept_once_and_may_be_signed_again(ledger: Ledger) -> None:
    bundles, digest = Bundles(ledger.database), "d" * 64
    assert bundles.find(digest) is None and bundles.archive(digest) == b""
    bundles.put(digest, b"\0archive", "signed")
    bundles.put(digest, b"\0archive", "signed again")
    row = bundles.find(digest)
    assert row is not None
    assert (row.signature, row.size_bytes, bundles.archive(digest)) == ("signed again", 8, b"\0archive")


def test_bundles_go_once_no_study_names_them_and_nobody_is_about_to(ledger: Ledger) -> None:
    # Given one that two studies name, one that no study names, and one that was submitted a moment ago
    bundles = Bundles(ledger.database)
    for digest in ("shared", "orphan", "coming"):
        bundles.put(digest, b"\0archive", "signed")
    first, second = ledger.study(name="first", bundle="shared"), ledger.study(name="second", bundle="shared")
    ledger.study(name="without")
    with ledger.database.transaction() as connection:
        connection.execute(update(bundle_rows).values(created_at=db_now() - 3601))
    bundles.put("coming", b"\0archive", "signed again")

    def kept() -> set[str]:
        return {digest for digest in ("shared", "orphan", "coming") if bundles.find(digest)}

    # When room is made, then the orphan goes; and the shared one with the last study that names it
    assert (bundles.drop_unused(), kept()) == (1, {"shared", "coming"})
    for study in (first, second):
        ledger.cancel(study)
    assert ledger.studies.delete(first.id)
    assert (bundles.drop_unused(), kept()) == (0, {"shared", "coming"})
    assert ledger.studies.delete(second.id)
    assert (bundles.drop_unused(), kept()) == (1, {"coming"})


def test_creating_the_schema_twice_is_harmless_and_another_version_is_refused(ledger: Ledger) -> None:
    ledger.database.create_schema()
    with ledger.database.transaction() as connection:
        connection.execute(text("UPDATE hn_meta SET value = '99' WHERE key = 'schema_version'"))
    with pytest.raises(SchemaMismatch, match="99"):
        ledger.database.check_schema()


def test_the_database_refuses_a_running_ticket_without_an_expiry(ledger: Ledger) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    with pytest.raises(IntegrityError), ledger.database.transaction() as connection:
        connection.execute(update(tickets).where(tickets.c.id == ticket).values(state="running"))


def test_a_database_without_a_ledger_is_named_as_such(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database, pytest.raises(ServiceUnavailable, match="no HighNoon ledger"):
        database.check_schema()


def test_the_ledger_lives_in_postgresql_alone(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/studies.db")
    with pytest.raises(InvalidInput, match="postgresql"):
        database.create_schema()
    with pytest.raises(ServiceUnavailable, match="no HighNoon ledger"):
        database.check_schema()


def test_an_unreachable_database_is_unavailable_and_its_password_stays_hidden() -> None:
    database = Database("postgresql://anna:secret@127.0.0.1:1/nowhere")
    with pytest.raises(ServiceUnavailable) as caught:
        database.check_schema()
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_may_only_be_read_for_now_is_waited_for(postgres_url: str) -> None:
    """A standby that is not promoted yet, or a full disk: it passes, and no trial may die of it."""
    Ledger(postgres_url).close()
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


def test_a_large_submission_is_analyzed_at_once(ledger: Ledger) -> None:
    """Without statistics PostgreSQL sorts all waiting tickets of a study at each tick instead of reading the first."""
    ledger.study(5_000)
    known = text("SELECT reltuples FROM pg_class WHERE oid = 'hn_tickets'::regclass")
    assert ledger.database.call(known) == 5_000


GRID: dict[str, Any] = {"name": "digits", "objective": "a:b", "search_space": {"x": ["uniform", 0.0, 1.0]}, "seed": 1}


@pytest.mark.parametrize(
    ("before", "changed", "named"),
    [
        ({"sampler": {"name": "grid", "points": 3}}, {"sampler": {"name": "grid", "points": 5}}, "sampler"),
        ({"sampler": "tpe"}, {"sampler": {"name": "grid", "points": 5}}, "sampler"),
        ({"sampler": "grid"}, {"search_space": {"x": ["int", 0, 8]}}, "search_space"),
        ({"sampler": "grid"}, {"param_constraints": ["x > 2"]}, "param_constraints"),
    ],
)
def test_a_grid_that_would_skip_or_repeat_points_is_refused_once_a_trial_has_begun(
    ledger: Ledger, before: dict[str, Any], changed: dict[str, Any], named: str
) -> None:
    if before["sampler"] == "grid":
        before = {**before, "search_space": {"x": ["int", 0, 9]}}
    first = {**GRID, "n_trials": 3, **before}
    again = {**first, "n_trials": 5, **changed}

    study = submit(StudySpec.from_json(first), ledger.access).record
    ledger.start(*ledger.control.dispatch(study.id, 1))
    with pytest.raises(StudyConflict, match=f"differs in {named}: its trials.*points of a grid by number"):
        submit(StudySpec.from_json(again), ledger.access)

    # Before its first trial no point has been tried
    submit(StudySpec.from_json({**first, "name": "unbegun"}), ledger.access)
    assert submit(StudySpec.from_json({**again, "name": "unbegun"}), ledger.access).trials == 5


@pytest.mark.parametrize("sampler", ["tpe", "grid", "brute_force"])
def test_a_study_keeps_its_seed_once_a_trial_has_begun(ledger: Ledger, sampler: str) -> None:
    space = {"x": {"type": "float", "low": 0.0, "high": 9.0, "step": 1.0}}
    written = {**GRID, "sampler": sampler, "search_space": space, "n_trials": 3}
    other_seed = StudySpec.from_json({**written, "n_trials": 5, "seed": 7})
    submit(StudySpec.from_json({**written, "seed": 2}), ledger.access)
    # Before its first trial nothing has been drawn
    study = submit(StudySpec.from_json(written), ledger.access).record
    ledger.start(*ledger.control.dispatch(study.id, 1))

    with pytest.raises(StudyConflict, match=r"exists with seed 1, not 7: .* leave `seed` out"):
        submit(other_seed, ledger.access)
    without_seed = submit(StudySpec.from_json({**written, "n_trials": 5, "seed": None}), ledger.access)
    assert (without_seed.added, without_seed.spec.seed) == (2, 1)


def test_a_study_with_more_trials_than_a_grid_has_points_does_not_become_that_grid(ledger: Ledger) -> None:
    submit(StudySpec.from_json({**GRID, "n_trials": 6}), ledger.access)
    with pytest.raises(StudyConflict, match="differs in sampler"):
        submit(StudySpec.from_json({**GRID, "n_trials": 6, "sampler": {"name": "grid", "points": 5}}), ledger.access)
