"""The coordinator's statements: conditional on what they were planned for, and carried by an index."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from sqlalchemy import event, func, select, text, update

from highnoon.coordinator.cluster_metrics import Counters
from highnoon.coordinator.planner import Stop, plan
from highnoon.coordinator.service import Service
from highnoon.coordinator.snapshot_reader import SnapshotReader
from highnoon.coordinator.study_faults import StudyFaults
from highnoon.shared.domain.errors import InvalidInput, StudyConflict
from highnoon.shared.domain.limits import FIRST_FAILURES, limit_met
from highnoon.shared.domain.states import Ending, StudyState, TicketState
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store import steering
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.control import Control
from highnoon.shared.store.node_queries import NEWEST_ATTEMPTS, NodeQueries
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.schema import attempts, db_now, studies, tickets, workers
from highnoon.shared.store.snapshot_queries import SnapshotQueries
from highnoon.shared.store.study_records import StudyRecord
from tests.conftest import SHORT_PERIODS
from tests.ledger import Ledger, add_closed_tickets, rows_read

SPEC: dict[str, Any] = {
    "name": "digits",
    "objective": "tests.objectives:noop",
    "search_space": {"x": ["uniform", 0.0, 1.0]},
    "direction": "minimize",
    "n_trials": 3,
    "max_attempts": 3,
    "retry_errors": 0,
}
RUNNING, PAUSED, FINISHED = StudyState.RUNNING, StudyState.PAUSED, StudyState.FINISHED


@pytest.fixture
def access(postgres_url: str) -> Iterator[Access]:
    with opened(postgres_url, create=True) as access:
        yield access


@pytest.fixture
def snapshot(access: Access) -> SnapshotQueries:
    return SnapshotQueries(access.database)


@pytest.fixture
def control(access: Access) -> Control:
    return Control(access.database)


def study(access: Access, name: str = "digits", n_trials: int = 3, **keys: Any) -> StudyRecord:
    optuna_id = access.store.create_study(name, keys.get("direction", "minimize"))
    spec = {**SPEC, "name": name, "n_trials": n_trials, **keys}
    return access.studies.create(name, spec, queue="cpu", n_trials=n_trials, optuna_study_id=optuna_id)


def states(access: Access, record: StudyRecord) -> dict[TicketState, int]:
    return dict(access.studies.counts(record.id).by_state)


def close_all(access: Access, record: StudyRecord, ending: Ending = Ending.COMPLETED) -> None:
    with access.database.transaction() as connection:
        connection.execute(
            update(tickets)
            .where(tickets.c.study_id == record.id)
            .values(state=TicketState.CLOSED, ending=ending, value=0.5, outcome={"ending": ending}, closed_at=db_now())
        )


def test_load_counts_open_tickets_and_ready_ones_only_as_far_as_they_could_be_dispatched(
    access: Access, control: Control, snapshot: SnapshotQueries
) -> None:
    record = study(access, n_trials=20)
    assert len(control.dispatch(record.id, 4)) == 4
    (load,) = snapshot.loads()
    assert (load.waiting, load.queued, load.running) == (True, 4, 0)
    assert snapshot.ready([record.id], at_most=5) == {record.id: (5, 0)}
    assert snapshot.ready([record.id], at_most=50) == {record.id: (16, 0)}
    assert load.age_s > 0 and not load.deleted
    with access.database.transaction() as connection:
        first = select(func.min(tickets.c.ordinal)).where(tickets.c.state == TicketState.WAITING).scalar_subquery()
        connection.execute(update(tickets).where(tickets.c.ordinal == first).values(attempt=1))
    assert snapshot.ready([record.id], at_most=1) == {record.id: (1, 1)}


def test_study_deleted_in_optuna_is_seen(access: Access, snapshot: SnapshotQueries) -> None:
    record = study(access)
    (load,) = snapshot.loads()
    assert (load.deleted, load.directions) == (False, "MINIMIZE")
    optuna.delete_study(study_name=record.name, storage=access.database.url)
    (load,) = snapshot.loads()
    assert load.deleted


def test_best_values_and_recent_endings_of_several_studies(
    access: Access, control: Control, snapshot: SnapshotQueries
) -> None:
    low, high, empty = study(access, "low"), study(access, "high"), study(access, "empty")
    for record, ending in ((low, Ending.COMPLETED), (high, Ending.COMPLETED)):
        control.dispatch(record.id, 1)
        close_all(access, record, ending)
    with access.database.transaction() as connection:
        connection.execute(update(tickets).where(tickets.c.ordinal == 1).values(value=0.9, ending="vanished"))
        connection.execute(update(tickets).where(tickets.c.ordinal == 2).values(value=0.7))
    best = snapshot.best_values({high.id: 0.6}, {low.id: 0.5, empty.id: 0.5})
    assert best == {low.id: 0.5, high.id: 0.7, empty.id: None}
    assert snapshot.best_values({high.id: 0.8}, {low.id: 0.4}) == {low.id: None, high.id: None}
    endings = snapshot.recent_endings({low.id: 2, empty.id: 2})
    assert len(endings[low.id]) == 2 and endings[empty.id] == []


def test_trials_that_a_person_has_stopped_are_no_recent_endings(
    access: Access, control: Control, snapshot: SnapshotQueries
) -> None:
    record = study(access, n_trials=4)
    control.dispatch(record.id, 1)
    close_all(access, record, Ending.FAILED)
    with access.database.transaction() as connection:
        stopped = update(tickets).where(tickets.c.ordinal > 1)
        connection.execute(stopped.values(ending=Ending.CANCELLED, closed_at=db_now() + 5.0))
    assert snapshot.recent_endings({record.id: 2}) == {record.id: [Ending.FAILED] * 2}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_study_that_reached_its_target_goes_on_with_added_trials_until_one_of_them_reaches_it(
    access: Access, control: Control, direction: str
) -> None:
    record = study(access, n_trials=1, target_value=0.5, direction=direction)
    queues: Any = SimpleNamespace(depths=lambda: None)
    settings = load_settings({})
    faults = StudyFaults(control, Counters())
    reader = SnapshotReader(settings, database=access.database, queues=queues, faults=faults)

    def planned() -> list[str]:
        actions = plan(reader.read(steady_s=0.0), settings)
        return [action.reason for action in actions if isinstance(action, Stop)]

    control.dispatch(record.id, 1)
    close_all(access, record)
    control.finish(record.id, before=RUNNING, state=FINISHED, reason="target_value")
    # When a trial is added, then it may run
    assert steering.add_trials(access, access.studies.get("digits"), 2) == 2
    assert planned() == []
    assert len(control.dispatch(record.id, 1)) == 1
    assert planned() == []
    # And the study ends when it reaches the target too
    with access.database.transaction() as connection:
        reached = {"state": TicketState.CLOSED, "ending": Ending.COMPLETED, "value": 0.5, "outcome": {}}
        is_queued = tickets.c.state == TicketState.QUEUED
        connection.execute(update(tickets).where(is_queued).values(**reached, closed_at=db_now()))
    assert planned() == ["target_value"]


def test_trial_times_of_a_study_that_has_begun_are_read_at_every_tick_until_enough_trials_ended(ledger: Ledger) -> None:
    # Given a study that was read before its first trial
    begun = study(ledger.access, "begun", n_trials=50)
    ledger.nodes.enter("anna", host="node-a", pid=1, slots=2, queues=["cpu"])
    queues: Any = SimpleNamespace(depths=lambda: None)
    faults = StudyFaults(ledger.control, Counters())
    reader = SnapshotReader(load_settings({}), database=ledger.database, queues=queues, faults=faults)

    def ended(turns: dict[int, float]) -> int:
        (load,) = reader.read(steady_s=30.0, turns=turns).loads
        assert load.fault is None
        return load.ended

    assert ended({}) == 0

    # When its first trials end within the second for which a reading holds
    for ticket in ledger.tickets(begun)[:3]:
        ledger.run(ticket)

    assert ended({begun.id: 1.0}) == 3


def test_a_long_limit_of_one_study_ends_no_other_that_had_successes(access: Access, control: Control) -> None:
    # Given ten successes and then five failures, beside a study whose limit needs more endings
    mixed = study(access, "mixed", n_trials=16)
    study(access, "patient", max_failures_in_a_row=20)
    control.dispatch(mixed.id, 1)
    with access.database.transaction() as connection:
        for first, ending in ((0, Ending.COMPLETED), (10, Ending.FAILED)):
            closed = {"state": TicketState.CLOSED, "ending": ending, "outcome": {"ending": ending}}
            value = 0.5 if ending is Ending.COMPLETED else None
            connection.execute(
                update(tickets)
                .where(tickets.c.study_id == mixed.id, tickets.c.ordinal.between(first, 14))
                .values(**closed, value=value, closed_at=db_now() + tickets.c.ordinal)
            )
    queues: Any = SimpleNamespace(depths=lambda: None)
    faults = StudyFaults(control, Counters())
    reader = SnapshotReader(load_settings({}), database=access.database, queues=queues, faults=faults)

    loads = {load.study.name: load for load in reader.read(steady_s=30.0).loads}

    load = loads["mixed"]
    assert (load.has_success, len(load.recent_endings)) == (True, FIRST_FAILURES), "as far back as its own limit"
    assert not limit_met(
        load.study.spec,
        age_s=load.age_s,
        best_value=load.best_value,
        has_success=load.has_success,
        recent_endings=load.recent_endings,
        since_best=load.since_best,
    )


def test_stop_does_not_apply_when_trials_were_added_since_it_was_planned(access: Access, control: Control) -> None:
    record = study(access)
    access.studies.add_trials(record.id, 2, at_most=1000)
    assert control.stop(record.id, "timeout", spec_version=record.spec_version) is False
    assert states(access, record) == {TicketState.WAITING: 5}
    newer = access.studies.get(record.name)
    assert newer.stop_reason is None and newer.spec["n_trials"] == 5
    assert control.stop(record.id, "timeout", spec_version=newer.spec_version) is True
    assert states(access, record) == {TicketState.CANCELLED: 5}


def test_stop_does_not_apply_when_failed_trials_are_retried_since_it_was_planned(
    access: Access, control: Control
) -> None:
    record = study(access)
    close_all(access, record, Ending.FAILED)
    assert access.studies.retry(record.id, endings=(Ending.FAILED,)) == 3
    assert control.stop(record.id, "failures_in_a_row", spec_version=record.spec_version) is False
    assert states(access, record) == {TicketState.WAITING: 3}


def test_close_does_not_apply_when_trials_were_added_or_a_person_cancelled(access: Access, control: Control) -> None:
    added, cancelled = study(access, "added"), study(access, "cancelled")
    for record in (added, cancelled):
        close_all(access, record)
    access.studies.add_trials(added.id, 1, at_most=1000)
    access.studies.cancel(cancelled.id)
    for record in (added, cancelled):
        assert control.finish(record.id, before=RUNNING, state=FINISHED, reason="n_trials") is False
    assert control.finish(cancelled.id, before=StudyState.CANCELLING, state=StudyState.CANCELLED, reason="cancelled")


def test_additions_at_once_all_count(access: Access) -> None:
    record = study(access)
    close_all(access, record)
    with ThreadPoolExecutor(5) as pool:
        added = list(pool.map(lambda _: access.studies.add_trials(record.id, 5, at_most=1000), range(10)))
    assert added == [5] * 10
    assert access.studies.counts(record.id).total == 53
    assert access.studies.get(record.name).spec["n_trials"] == 53


def test_additions_keep_to_the_limit(access: Access) -> None:
    record = study(access)
    assert [access.studies.add_trials(record.id, 4, at_most=9) for _ in range(3)] == [4, 2, 0]
    assert access.studies.get(record.name).spec["n_trials"] == 9


def test_nothing_is_added_to_a_cancelled_study(access: Access) -> None:
    record = study(access)
    assert access.studies.cancel(record.id)
    assert access.studies.add_trials(record.id, 1, at_most=1000) == 0
    with pytest.raises(StudyConflict, match="cancelled"):
        access.studies.extend(record.id, SPEC, n_trials=9)
    assert access.studies.retry(record.id, endings=(Ending.FAILED,)) == 0
    assert states(access, record) == {TicketState.CANCELLED: 3}


def test_changes_that_a_cancel_overtakes_are_refused_as_such_and_leave_nothing(access: Access) -> None:
    # Given a study that was running when a person read it, and that another one has cancelled since
    record = study(access)
    assert access.studies.cancel(record.id)

    for change in (
        lambda: steering.enqueue(access, record, {"x": 0.5}),
        lambda: steering.add_trials(access, record, 1),
        lambda: steering.pause(access, record),
    ):
        with pytest.raises(StudyConflict, match=r"is cancelling: (it was given up|only a running study)"):
            change()

    assert [trial.state.name for trial in access.optuna(record).trials()] == ["FAIL"]


def test_fault_is_kept_until_it_is_mended(access: Access, control: Control, snapshot: SnapshotQueries) -> None:
    record = study(access)
    control.record_fault(record.id, "specification: timeout: not a number")
    assert snapshot.faults() == {"digits": "specification: timeout: not a number"}
    assert access.studies.get("digits").fault == "specification: timeout: not a number"
    control.record_fault(record.id, None)
    assert snapshot.faults() == {}


def test_fault_for_which_workers_decline_tickets_is_shown_for_a_minute_and_holds_nothing_up(
    access: Access, control: Control, snapshot: SnapshotQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("highnoon.coordinator.study_faults.time.monotonic", lambda: now[0])
    record = study(access)
    control.record_declined(record.id, "ValueError: unreadable (node-a, 12:00:00)")
    queues: Any = SimpleNamespace(depths=lambda: None)
    faults = StudyFaults(control, Counters())
    reader = SnapshotReader(load_settings({}), database=access.database, queues=queues, faults=faults)
    for now[0], shown in (
        (1000.0, {"digits": "declined: ValueError: unreadable (node-a, 12:00:00)"}),
        (1059.0, {"digits": "declined: ValueError: unreadable (node-a, 12:00:00)"}),
        (1061.0, {}),
    ):
        (load,) = reader.read(steady_s=30.0).loads
        assert load.fault is None, "another node may start its tickets"
        faults.keep([load])
        assert snapshot.faults() == shown


@pytest.mark.parametrize("found", ["plug-in sampler: it has ended", "specification: timeout: not a number"])
def test_declined_ticket_replaces_no_fault_that_holds_the_study_up(
    access: Access, control: Control, snapshot: SnapshotQueries, found: str
) -> None:
    record = study(access)
    control.record_fault(record.id, found)
    control.record_declined(record.id, "ValueError: unreadable (node-a, 12:00:00)")
    assert snapshot.faults() == {"digits": found}
    control.record_fault(record.id, None)
    for reason in ("first", "second"):
        control.record_declined(record.id, reason)
        assert snapshot.faults() == {"digits": f"declined: {reason}"}


@pytest.mark.parametrize(("direction", "later"), [("minimize", 3), ("maximize", 2)])
def test_trials_since_the_best_are_counted_since_the_clock_began(
    access: Access, control: Control, snapshot: SnapshotQueries, direction: str, later: int
) -> None:
    # Given tickets closed one after the other, of which the first of several best ones decides
    record = study(access, n_trials=6, direction=direction)
    control.dispatch(record.id, 6)

    def close(ordinal: int, value: float, ending: Ending) -> None:
        outcome = {"ending": ending}
        closed = {"state": TicketState.CLOSED, "ending": ending, "value": value, "outcome": outcome}
        with access.database.transaction() as connection:
            where = (tickets.c.study_id == record.id, tickets.c.ordinal == ordinal)
            connection.execute(update(tickets).where(*where).values(**closed, closed_at=db_now() + ordinal))

    def since_best(at_most: int = 9) -> int:
        ways = ([record.id], []) if direction == "maximize" else ([], [record.id])
        return snapshot.since_best(*ways, at_most=at_most)[record.id]

    close(0, 0.0, Ending.PRUNED)
    assert since_best() == 1, "nothing has completed"
    for ordinal, value in enumerate((0.5, 0.1, 0.9, 0.1), start=1):
        close(ordinal, value, Ending.COMPLETED)
    close(5, 0.0, Ending.FAILED)
    assert (since_best(), since_best(at_most=1)) == (later, 1)

    # When trials are added to the study that had ended, then only those count
    with access.database.transaction() as connection:
        connection.execute(update(studies).where(studies.c.id == record.id).values(started_at=db_now() + 100))
    assert since_best() == 0


def test_study_that_runs_again_is_not_deleted(access: Access, control: Control) -> None:
    # Given a study that was over when a person looked at it, and that another one has given more trials since
    record = study(access)
    close_all(access, record)
    assert control.finish(record.id, before=RUNNING, state=FINISHED, reason="n_trials")
    seen = access.studies.get(record.name)
    assert steering.add_trials(access, seen, 1) == 1

    with pytest.raises(StudyConflict, match="is running: only one that is over can be deleted"):
        steering.delete_study(access, seen)

    assert len(control.dispatch(record.id, 5)) == 1
    access.optuna(record)  # which raises where Optuna's study is gone


def test_a_study_is_deleted_by_a_few_statements_and_with_nothing_of_others(access: Access, control: Control) -> None:
    # Given a study that is over and has as much of everything as Optuna keeps, and another one
    record, other = study(access), study(access, "other")
    for one in (record, other):
        fill_in_optuna(access, one)
    close_all(access, record)
    assert control.finish(record.id, before=RUNNING, state=FINISHED, reason="n_trials")
    before = rows_of_optuna(access)
    statements: list[str] = []
    event.listen(access.database.engine, "before_cursor_execute", lambda *sent: statements.append(sent[2]))

    steering.delete_study(access, access.studies.get(record.name))

    # Optuna itself would read and delete it row by row: minutes for ten thousand trials
    assert len(statements) < 30
    assert rows_of_optuna(access) == {table: count // 2 for table, count in before.items()}
    assert all(before.values()) and access.studies.find(record.name) is None
    access.optuna(other)


def test_a_study_that_is_gone_in_optuna_is_deleted_and_its_namesake_stays(access: Access, control: Control) -> None:
    record = study(access)
    close_all(access, record)
    assert control.finish(record.id, before=RUNNING, state=FINISHED, reason="n_trials")
    optuna.delete_study(study_name=record.name, storage=access.database.url)
    optuna.create_study(study_name=record.name, storage=access.database.url)

    steering.delete_study(access, access.studies.get(record.name))

    assert access.studies.find(record.name) is None and access.store.exists(record.name)


def fill_in_optuna(access: Access, record: StudyRecord) -> None:
    """With something in each of its tables."""
    filled = optuna.load_study(study_name=record.name, storage=access.database.url)
    filled.set_user_attr("a", 1)
    filled._storage.set_study_system_attr(filled._study_id, "a", 1)
    trial = optuna.create_trial(
        value=0.5,
        params={"x": 0.5},
        distributions={"x": FloatDistribution(0.0, 1.0)},
        intermediate_values={1: 0.5},
        user_attrs={"a": 1},
        system_attrs={"a": 1},
    )
    filled.add_trials([trial] * 20)
    filled._storage.record_heartbeat(filled.trials[0]._trial_id)


def rows_of_optuna(access: Access) -> dict[str, int]:
    """How many there are in each of its tables."""
    with access.database.transaction() as connection:
        names = connection.scalars(
            text("select tablename from pg_tables where tablename ~ '^(stud(y|ies)|trial)'")
        ).all()
        return {name: int(connection.scalar(text(f"select count(*) from {name}")) or 0) for name in names}


def test_nodes_long_silent_are_removed_unless_an_attempt_of_theirs_is_open(access: Access) -> None:
    record = study(access)
    nodes = Nodes(access.database)
    for worker in ("recent", "old", "old-and-busy"):
        nodes.enter(worker, host="node-a", pid=1, slots=2, queues=["cpu"])
    with access.database.transaction() as connection:
        ticket = connection.scalar(select(tickets.c.id).where(tickets.c.study_id == record.id).limit(1))
        connection.execute(
            attempts.insert().values(
                ticket_id=ticket, attempt=1, worker_id="old-and-busy", host="node-a", pid=1, started_at=db_now()
            )
        )
        connection.execute(update(workers).where(workers.c.id != "recent").values(seen_at=db_now() - 1000.0))
    assert nodes.remove_silent(for_s=900.0) == 1
    with access.database.transaction() as connection:
        assert set(connection.scalars(select(workers.c.id))) == {"recent", "old-and-busy"}


def test_no_statement_of_a_tick_scans_all_tickets(access: Access, control: Control, redis_url: str) -> None:
    # Given a ledger with 50,000 closed tickets, most of them of a study with every kind of limit that still runs,
    # and nodes that had them
    limits = {"timeout": 3600.0, "target_value": -1.0, "max_failures_in_a_row": 5, "early_stop": {"patience": 9}}
    big, small = study(access, "big", 2000, **limits), study(access, "small", 2000)
    nodes = ["anna", "bert", "carl"]
    add_closed_tickets(access.database, big.id, 50_000, of_workers=nodes)
    for node in nodes:
        Nodes(access.database).enter(node, host="node-a", pid=1, slots=4, queues=["cpu"])
    control.dispatch(small.id, 4)

    # When a coordinator ticks
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        statements.append((statement, parameters))

    event.listen(access.database.engine, "before_cursor_execute", note)
    settings = load_settings({}, database_url=access.url, redis_url=redis_url, **SHORT_PERIODS)
    with Broker(redis_url) as broker:
        service = Service(settings, database=access.database, broker=broker)
        for _ in range(2):
            assert service.tick()
        service.close()
    control.stop(big.id, "timeout", spec_version=big.spec_version)
    control.requeue([1, 2])
    control.finish(big.id, before=RUNNING, state=FINISHED, reason="n_trials")
    event.remove(access.database.engine, "before_cursor_execute", note)

    # Then none of its statements reads the tickets one by one, and few are needed
    assert len(statements) < 40
    seen = {statement for statement, _ in statements if "hn_tickets" in statement}
    assert len(seen) >= 8
    assert any("hn_workers" in statement and "hn_attempts" in statement for statement in seen), "streaks of failures"
    with access.database.transaction() as connection:
        for statement, parameters in statements:
            if "hn_tickets" not in statement:
                continue
            plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
            assert "Seq Scan on hn_tickets" not in plan, f"{statement}\n{plan}"
            assert "Seq Scan on hn_attempts" not in plan, f"{statement}\n{plan}"
            if "LIMIT" in statement and parameters.get("state") != TicketState.CANCELLED:
                assert "Bitmap Index Scan on hn_tickets" not in plan, (
                    f"all that waits, before the limit\n{statement}\n{plan}"
                )


def test_streaks_are_read_from_the_newest_attempts_of_nodes_that_had_many(access: Access) -> None:
    # Given nodes that had 30,000 trials today, all of a study that is over, and a new study
    nodes = ["anna", "bert", "carl"]
    over, new = study(access, "over"), study(access, "new", 10_000)
    add_closed_tickets(access.database, over.id, 30_000, of_workers=nodes)
    for node in nodes:
        Nodes(access.database).enter(node, host="node-a", pid=1, slots=4, queues=["cpu"])
    # When their failures at the new one are looked for
    with rows_read(access.database, "hn_tickets", "hn_attempts") as read:
        assert NodeQueries(access.database).failure_streaks(nodes, [new.id]) == []
    # Then a bounded number of attempts is read, and of tickets
    assert 0 < read[0] <= len(nodes) * 2 * NEWEST_ATTEMPTS


def test_many_studies_that_wait_are_not_read_from_the_beginning_of_the_table(
    access: Access, control: Control, snapshot: SnapshotQueries
) -> None:
    # Given a table of which all waits: PostgreSQL expects to meet a waiting ticket of any study soon
    records = [study(access, f"study-{number}", 2000) for number in range(12)]
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        statements.append((statement, parameters))

    # When a coordinator reads them, and tries to close the last one
    event.listen(access.database.engine, "before_cursor_execute", note)
    assert [load.waiting for load in snapshot.loads()] == [True] * len(records)
    assert set(snapshot.ready([record.id for record in records], at_most=5).values()) == {(5, 0)}
    assert not control.finish(records[-1].id, before=RUNNING, state=FINISHED, reason="n_trials")
    event.remove(access.database.engine, "before_cursor_execute", note)

    # Then it reads each study's first tickets by their index
    with access.database.transaction() as connection:
        for statement, parameters in statements:
            plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
            assert "Seq Scan on hn_tickets" not in plan, f"{statement}\n{plan}"


def test_how_long_trials_take_is_read_from_the_newest_and_from_those_that_run(ledger: Ledger) -> None:
    # Given a study whose older trials took an hour and its eight newest 2 s, one of whose trials has run for 1 s,
    record = ledger.study(n_trials=11)
    *done, running, _ = ledger.tickets(record)
    for ticket in done:
        ledger.run(ticket)
    ledger.start(running)
    # one whose running trial is older than all that have ended, one without any, and one with more than are counted
    other, empty, many = ledger.study(n_trials=2, name="slow"), ledger.study(name="new"), ledger.study(name="many")
    ended, old = ledger.tickets(other)
    ledger.run(ended)
    ledger.start(old)
    newest = ledger.start(ledger.tickets(many)[0]).ticket_id
    add_closed_tickets(ledger.database, many.id, 40)

    def took(ticket: int, seconds: float, **ticket_values: Any) -> None:
        with ledger.database.transaction() as connection:
            at = attempts.c.ticket_id == ticket
            connection.execute(update(attempts).where(at).values(started_at=db_now() - seconds))
            connection.execute(update(attempts).where(at, attempts.c.ended_at.is_not(None)).values(ended_at=db_now()))
            if ticket_values:
                connection.execute(update(tickets).where(tickets.c.id == ticket).values(**ticket_values))

    for number, ticket in enumerate(done):
        took(ticket, 3600.0 if number == 0 else 2.0, closed_at=1000.0 + number)
    took(running, 1.0)
    took(ended, 1.0)
    took(old, 500.0)
    took(newest, 500.0)

    times = ledger.snapshot.trial_times([record.id, other.id, empty.id, many.id], count_at_most=32)

    assert times == {
        record.id: (pytest.approx(2.0, abs=0.5), 9),
        other.id: (pytest.approx(500.0, abs=5.0), 1),
        many.id: (pytest.approx(500.0, abs=5.0), 32),
    }


def test_a_share_is_changed_while_the_study_runs_and_no_sampled_trial_is_refused_for_it(access: Access) -> None:
    record = study(access)
    steering.set_share(access, record, priority=3, max_running=2)
    steering.set_share(access, access.studies.get("digits"), max_running=0)

    changed = access.studies.get("digits")
    assert (changed.spec["priority"], changed.spec["max_running"]) == (3, None)
    assert changed.spec_version == record.spec_version
    (load,) = SnapshotQueries(access.database).loads()
    assert (load.priority, load.max_running) == (3, None)

    with pytest.raises(InvalidInput, match=r"priority: .*\(got 1001\)") as refused:
        steering.set_share(access, changed, priority=1001, max_running=-1)
    assert [problem.key for problem in refused.value.problems] == ["priority", "max_running"]
    access.studies.cancel(record.id)
    with pytest.raises(StudyConflict, match="no share of the slots"):
        steering.set_share(access, access.studies.get("digits"), priority=2)
