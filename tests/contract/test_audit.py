"""The audit on a real PostgreSQL: each change that a person makes is in it, with them, and stays there."""

from __future__ import annotations

import os
import pwd
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from highnoon.shared.domain.errors import ServiceRefused
from highnoon.shared.domain.states import Ending, StudyState, WorkerState
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store import audit
from highnoon.shared.store.audit import Actor, AuditLog, acting_as
from highnoon.shared.store.steering import enqueue
from tests.ledger import DONE, FAILED, SPEC, Ledger


def test_every_change_of_a_study_is_recorded_with_its_actor(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "runs_only_our_code", lambda: False)
    study = ledger.study(n_trials=2, objective="train.py:objective")
    ticket = ledger.tickets(study)[0]
    lease = ledger.run(ticket, FAILED)
    anna = Actor(name="anna@10.0.0.7", via="dashboard (token)")

    with acting_as(anna):
        assert ledger.studies.pause(study.id) and not ledger.studies.pause(study.id)
        assert ledger.studies.resume(study.id)
        assert ledger.studies.add_trials(study.id, 3, at_most=4) == 2
        assert ledger.studies.retry(study.id, endings=(Ending.FAILED,), numbers=(lease.trial_number,)) == 1
        assert ledger.studies.extend(study.id, SPEC, n_trials=5) == 1
        lease_of_running = ledger.start(ledger.tickets(study)[1])
        running = lease_of_running.trial_number
        assert ledger.studies.stop_trial(study.id, running) and not ledger.studies.stop_trial(study.id, 99)
        assert ledger.studies.cancel(study.id) and not ledger.studies.cancel(study.id)
    ledger.finish(lease_of_running, Outcome(ending=Ending.CANCELLED))
    ended = {"before": StudyState.CANCELLING, "state": StudyState.CANCELLED}
    assert ledger.control.finish(study.id, **ended, reason="cancelled") and ledger.studies.delete(study.id)

    entries = AuditLog(ledger.database).entries(study="digits", limit=100)
    assert [(entry.action, entry.details) for entry in entries] == [
        ("create", {"trials": 2, "objective": "train.py:objective"}),
        ("pause", None),
        ("resume", None),
        ("add trials", {"added": 2}),
        ("retry", {"trials": [lease.trial_number], "tickets": 1}),
        ("extend", {"trials": 5, "added": 1}),
        ("stop trial", {"trial": running}),
        ("cancel", None),
        ("delete", None),
    ]
    user = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert [(entry.actor, entry.via) for entry in entries] == [
        (user, "python"),
        *[("anna@10.0.0.7", "dashboard (token)")] * 7,
        (user, "python"),
    ]
    assert {entry.account for entry in entries} == {ledger.database.engine.url.username}
    assert AuditLog(ledger.database).entries(limit=2) == entries[-2:]


def test_ten_points_at_once_are_all_enqueued(ledger: Ledger) -> None:
    written = {"name": "digits", "objective": "train.py:objective", "search_space": {"x": ["uniform", 0.0, 1.0]}}
    optuna_id = ledger.access.store.create_study("digits", "minimize")
    spec = {**SPEC, **written, "n_trials": 1}
    study = ledger.studies.create("digits", spec, queue="cpu", n_trials=1, optuna_study_id=optuna_id)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda number: enqueue(ledger.access, study, {"x": number / 10}), range(10)))
    assert len(ledger.tickets(study)) == 11
    points = [trial.system_attrs["fixed_params"]["x"] for trial in ledger.optuna().get_trials()]
    assert sorted(points) == [number / 10 for number in range(10)]


def test_a_point_of_numpys_numbers_is_enqueued_whole(ledger: Ledger) -> None:
    written = {"name": "digits", "objective": "train.py:objective", "search_space": {"x": ["uniform", 0.0, 1.0]}}
    optuna_id = ledger.access.store.create_study("digits", "minimize")
    spec = {**SPEC, **written, "n_trials": 1}
    study = ledger.studies.create("digits", spec, queue="cpu", n_trials=1, optuna_study_id=optuna_id)
    enqueue(ledger.access, study, {"x": np.float32(0.5)})  # type: ignore[dict-item]
    assert len(ledger.tickets(study)) == 2
    assert [trial.system_attrs["fixed_params"] for trial in ledger.optuna().get_trials()] == [{"x": 0.5}]
    details = [entry.details for entry in AuditLog(ledger.database).entries(limit=9) if entry.action == "enqueue"]
    assert details == [{"params": {"x": 0.5}}]


def test_an_entry_has_as_text_what_json_does_not_know(ledger: Ledger) -> None:
    AuditLog(ledger.database).add("exec", program=Path("train.py"), count=np.int64(4))
    (entry,) = AuditLog(ledger.database).entries(limit=9)
    assert entry.details == {"program": "train.py", "count": "4"}


def test_what_a_node_is_made_to_do_is_recorded_once_and_its_own_states_are_not(ledger: Ledger) -> None:
    ledger.nodes.enter("w1", host="node-a", pid=1, slots=2, queues=["cpu"])
    ledger.nodes.mark("w1", WorkerState.QUARANTINED, "fails alone")

    assert ledger.nodes.reinstate("w1") and not ledger.nodes.reinstate("w1")
    assert ledger.nodes.drain("w1", "a person drained it") and not ledger.nodes.drain("w1", "again")
    ledger.nodes.mark("w1", WorkerState.GONE)

    entries = AuditLog(ledger.database).entries(limit=100)
    assert [(entry.action, entry.study, entry.details) for entry in entries] == [
        ("reinstate", None, {"worker": "w1", "host": "node-a"}),
        ("drain", None, {"worker": "w1", "host": "node-a"}),
    ]


def test_no_change_is_made_without_its_entry(ledger: Ledger) -> None:
    study = ledger.study()
    with ledger.database.transaction() as connection:
        connection.execute(text("ALTER TABLE hn_audit ADD CONSTRAINT refuses CHECK (action <> 'pause')"))
    with pytest.raises(DBAPIError, match="refuses"):
        ledger.studies.pause(study.id)
    assert ledger.studies.get("digits").state == "running"


@pytest.mark.parametrize(
    "statement", ["UPDATE hn_audit SET actor = 'eve'", "DELETE FROM hn_audit", "TRUNCATE hn_audit"]
)
def test_an_entry_is_neither_changed_nor_removed(ledger: Ledger, statement: str) -> None:
    ledger.study()
    with pytest.raises(DBAPIError, match="append-only"), ledger.database.transaction() as connection:
        connection.execute(text(statement))
    assert len(AuditLog(ledger.database).entries(limit=10)) == 1


def test_entries_are_removed_when_they_are_older_than_they_are_kept(ledger: Ledger) -> None:
    log = AuditLog(ledger.database)
    with ledger.database.transaction() as connection:
        for days in (401, 399, 366, 1):
            connection.execute(
                text(
                    "INSERT INTO hn_audit (at, actor, via, action)"
                    " VALUES (hn_now_1() - :days * 86400.0, 'anna', 'python', :days)"
                ).bindparams(days=days)
            )
    assert log.remove_old() == 1
    assert [entry.action for entry in log.entries(limit=10)] == ["399", "366", "1"]


def test_the_account_of_workers_reads_the_audit_and_writes_nothing_to_it(ledger: Ledger) -> None:
    study = ledger.study()
    with ledger.database.transaction() as connection:
        connection.execute(text("CREATE ROLE highnoon_worker"))
        connection.execute(text("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO highnoon_worker"))
        connection.execute(text("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO highnoon_worker"))
    try:
        ledger.database.create_schema()
        with ledger.database.transaction() as connection:
            connection.execute(text("SET LOCAL ROLE highnoon_worker"))
            assert connection.scalar(text("SELECT count(*) FROM hn_audit")) == 1
        for statement in (
            "INSERT INTO hn_audit (at, actor, via, action) VALUES (1, 'a', 'b', 'c')",
            "DELETE FROM hn_audit",
        ):
            with pytest.raises(ServiceRefused, match="permission denied"), ledger.database.transaction() as connection:
                connection.execute(text("SET LOCAL ROLE highnoon_worker"))
                connection.execute(text(statement))
    finally:
        with ledger.database.transaction() as connection:
            connection.execute(text("DROP OWNED BY highnoon_worker"))
            connection.execute(text("DROP ROLE highnoon_worker"))
    ledger.run(ledger.tickets(study)[0], DONE)
