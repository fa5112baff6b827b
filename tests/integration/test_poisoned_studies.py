"""One study's broken data stops no other study: ticks by hand, beside a study that must finish."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from prometheus_client import CollectorRegistry
from sqlalchemy import select, text, update

from highnoon.coordinator.cluster_metrics import Counters, LedgerCollector
from highnoon.coordinator.service import Service
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.lease import Disposition, Holder, Lease
from highnoon.shared.domain.states import Ending, StudyState, TicketState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.settings import Settings, load_settings
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.optuna_trials import NewTrial
from highnoon.shared.store.schema import db_now, tickets
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import submit
from tests.conftest import SHORT_PERIODS

ANNA = Holder(worker_id="anna", host="node-a", pid=1)
N_TRIALS = 20


class Bench:
    """A ledger, one coordinator, and a worker that is played by the test."""

    def __init__(self, access: Access, service: Service, settings: Settings, broker: Broker) -> None:
        self.access, self.service, self.settings, self.broker = access, service, settings, broker
        self.registry = CollectorRegistry()
        self.cleanup = ExitStack()
        self.attempts = Attempts(access.database)
        Nodes(access.database).enter("anna", host="node-a", pid=1, slots=2, queues=["cpu"])

    def submit(self, name: str, n_trials: int = N_TRIALS, **keys: Any) -> StudyRecord:
        spec = {
            "name": name,
            "objective": "tests.objectives:noop",
            "search_space": {"x": ["uniform", 0.0, 1.0]},
            "direction": "minimize",
            "n_trials": n_trials,
        }
        return submit(StudySpec.from_json({**spec, **keys}), self.access).record

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.access.database.transaction() as connection:
            connection.execute(text(statement), parameters)

    def queued(self, record: StudyRecord) -> list[int]:
        of_study = tickets.c.study_id == record.id, tickets.c.state == TicketState.QUEUED
        with self.access.database.transaction() as connection:
            return list(connection.scalars(select(tickets.c.id).where(*of_study).order_by(tickets.c.ordinal)))

    def start(self, ticket: int) -> Lease:
        candidate = self.attempts.look(ticket)
        assert candidate is not None
        point = NewTrial(params={"x": 0.5}, distributions={"x": FloatDistribution(0.0, 1.0)})
        lease = self.attempts.start(candidate, point, ANNA, ttl_s=30.0, log_path="")
        assert isinstance(lease, Lease), lease
        return lease

    def finish(self, lease: Lease, ending: Ending = Ending.COMPLETED) -> None:
        outcome = Outcome(ending=ending, value=0.25 if ending is Ending.COMPLETED else None)
        self.attempts.finish(lease, outcome, disposition=Disposition.CLOSE, token=uuid.uuid4().hex)

    def expire(self, lease: Lease) -> None:
        with self.access.database.transaction() as connection:
            statement = update(tickets).where(tickets.c.id == lease.ticket_id)
            connection.execute(statement.values(lease_expires_at=db_now() - 1.0))

    def tick(self) -> None:
        Nodes(self.access.database).beat("anna")
        assert self.service.tick()

    def run_to_its_end(self, record: StudyRecord, *, beside: StudyRecord) -> None:
        """Ticks and plays the worker until the study is over. Its first lease runs out; the other study is declined."""
        expire_one = True
        for _ in range(100):
            self.tick()
            for ticket in self.queued(beside):
                self.attempts.decline(ticket, delay_s=60.0)
            for ticket in self.queued(record):
                lease = self.start(ticket)
                if expire_one:
                    self.expire(lease)
                    expire_one = False
                else:
                    self.finish(lease)
            self.execute("UPDATE hn_tickets SET not_before = 0 WHERE study_id = :study", study=record.id)
            if self.access.studies.get(record.name).is_over:
                return
        raise AssertionError(f"still open: {self.access.studies.counts(record.id).by_state}")

    def metrics(self) -> dict[str, float]:
        collector = LedgerCollector(self.settings, self.access.database, self.broker)
        samples = [sample for family in collector.collect() for sample in family.samples]
        return {f"{sample.name}{sorted(map(str, sample.labels.values()))}": sample.value for sample in samples}


@pytest.fixture
def bench(postgres_url: str, redis_url: str) -> Iterator[Bench]:
    settings = load_settings(
        {},
        database_url=postgres_url,
        redis_url=redis_url,
        **{**SHORT_PERIODS, "lease_s": 0.2, "renew_s": 0.05, "presence_s": 5.0},
    )
    registry = CollectorRegistry()
    with opened(postgres_url, create=True) as access, Broker(redis_url) as broker:
        service = Service(settings, database=access.database, broker=broker, counters=Counters(registry))
        bench = Bench(access, service, settings, broker)
        bench.registry = registry
        with bench.cleanup:
            yield bench
        service.close()


def _wrong_type(bench: Bench, record: StudyRecord) -> None:
    spec = dict(record.spec) | {"timeout": "soon", "max_attempts": "three"}
    _respecify(bench, record, spec)


def _no_object(bench: Bench, record: StudyRecord) -> None:
    _respecify(bench, record, [1, 2])


def _respecify(bench: Bench, record: StudyRecord, spec: Any) -> None:
    bench.execute(
        "UPDATE hn_studies SET spec = :spec WHERE id = :study",
        spec=json.dumps(spec),
        study=record.id,
    )


def _unknown_ending(bench: Bench, record: StudyRecord) -> None:
    bench.execute(
        "UPDATE hn_tickets SET state = 'closed', ending = 'vanished', closed_at = 1e12, "
        'outcome = \'{"ending": "vanished"}\' WHERE study_id = :study AND ordinal = 9',
        study=record.id,
    )
    bench.execute(
        "INSERT INTO hn_attempts (ticket_id, attempt, worker_id, host, pid, started_at, ended_at, ending) "
        "SELECT id, 1, 'anna', 'node-a', 1, 0, 1e12, 'vanished' FROM hn_tickets WHERE ending = 'vanished'"
    )


def _deleted(bench: Bench, record: StudyRecord) -> None:
    optuna.delete_study(study_name=record.name, storage=bench.access.database.url)


def _other_direction(bench: Bench, record: StudyRecord) -> None:
    bench.execute(
        "UPDATE study_directions SET direction = 'MAXIMIZE' "
        "WHERE study_id = (SELECT study_id FROM studies WHERE study_name = :name)",
        name=record.name,
    )


def _nonsense_enqueued(bench: Bench, record: StudyRecord) -> None:
    study = optuna.load_study(study_name=record.name, storage=bench.access.url)
    study.enqueue_trial({"x": "nonsense", "y": 7})
    bench.execute("UPDATE trial_system_attributes SET value_json = '[1' WHERE key = 'fixed_params'")


def _foreign_trials(bench: Bench, record: StudyRecord) -> None:
    study = optuna.load_study(study_name=record.name, storage=bench.access.url)
    for trial in (study.ask(), study.ask()):
        trial.suggest_float("x", 50.0, 60.0)
        trial.suggest_categorical("another", ["a", "b"])


def _locked_rows(bench: Bench, record: StudyRecord) -> None:
    """A client that hangs in the middle of a transaction."""
    hanging = bench.access.database.engine.connect()
    bench.cleanup.callback(hanging.close)
    hanging.execute(text("SELECT 1 FROM hn_studies WHERE id = :study FOR UPDATE"), {"study": record.id})
    hanging.execute(text("SELECT 1 FROM hn_tickets WHERE state = 'running' FOR UPDATE"))


def _locked_trial(bench: Bench, record: StudyRecord) -> None:
    """A client of Optuna that hangs while it writes to the trial of the dead attempt."""
    hanging = bench.access.database.engine.connect()
    bench.cleanup.callback(hanging.close)
    hanging.execute(text("SELECT 1 FROM trials WHERE state = 'RUNNING' FOR UPDATE"))


POISONS: dict[str, tuple[Callable[[Bench, StudyRecord], None], str | None]] = {
    "specification with a wrong type": (_wrong_type, "specification: "),
    "specification that is no object": (_no_object, "specification: "),
    "unknown ending in a stored outcome": (_unknown_ending, "endings: 'vanished' is not a valid Ending"),
    "study deleted in Optuna": (_deleted, None),
    "direction changed in Optuna": (_other_direction, "specification: direction is minimize, and maximize in Optuna"),
    "rows locked by a client that hangs": (_locked_rows, None),
    "trial locked by a client that hangs": (_locked_trial, None),
    "enqueued trial with nonsense": (_nonsense_enqueued, None),
    "foreign running trials with other distributions": (_foreign_trials, None),
}


@pytest.mark.parametrize("poison", POISONS)
def test_other_study_finishes_and_dead_lease_is_reaped_beside_poisoned_study(
    bench: Bench, poison: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a study in its middle, with an attempt whose holder is dead, and another study
    poisoned = bench.submit("poisoned", max_failures_in_a_row=9)
    bench.tick()
    dead = bench.start(bench.queued(poisoned)[0])
    sound = bench.submit("sound")

    # When the first one's data is broken
    break_data, fault = POISONS[poison]
    bench.expire(dead)
    break_data(bench, poisoned)
    with caplog.at_level(logging.ERROR, "highnoon"):
        bench.run_to_its_end(sound, beside=poisoned)

    # Then the other one finishes with exactly its trials, its dead lease reaped meanwhile
    record, counts = bench.access.studies.get("sound"), bench.access.studies.counts(sound.id)
    assert (record.state, record.stop_reason, record.fault) == (StudyState.FINISHED, "n_trials", None)
    assert (counts.by_state, counts.attempts) == ({TicketState.CLOSED: N_TRIALS}, N_TRIALS + 1)

    # And the fault is kept with its study, logged once, counted and exported
    found = bench.access.studies.get("poisoned")
    metrics = bench.metrics()
    assert metrics["highnoon_service_up['postgresql']"] == 1
    assert metrics["highnoon_tickets['closed', 'sound']"] == N_TRIALS
    if fault is None:
        assert found.fault is None and "study_fault" not in caplog.text
    else:
        assert found.fault is not None and fault in found.fault
        assert caplog.text.count("action=study_fault study=poisoned") <= 2
        assert metrics["highnoon_study_fault['poisoned']"] == 1
        during = fault.split(":")[0]
        assert (bench.registry.get_sample_value("highnoon_coordinator_study_faults_total", {"during": during}) or 0) > 1


def test_fault_is_over_when_the_data_is_mended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.submit("poisoned")
    _wrong_type(bench, record)
    bench.tick()
    assert bench.access.studies.get("poisoned").fault and not bench.queued(record)
    _respecify(bench, record, record.spec)
    monkeypatch.setattr("highnoon.coordinator.study_faults._SHOWN_S", 0.0)
    bench.tick()
    assert bench.access.studies.get("poisoned").fault is None and bench.queued(record)


def test_specification_that_is_no_object_is_a_fault_from_the_first_tick_on(bench: Bench) -> None:
    record = bench.submit("poisoned")
    _no_object(bench, record)
    bench.tick()
    assert bench.access.studies.get("poisoned").fault and not bench.queued(record)


def test_reaper_waits_a_whole_lease_after_the_machine_slept(bench: Bench) -> None:
    bench.tick()
    steady_since = bench.service._steady_since
    bench.tick()
    assert bench.service._steady_since == steady_since
    bench.service._read_at -= 60.0
    bench.tick()
    assert bench.service._steady_since != steady_since


def test_poisoned_study_can_be_cancelled(bench: Bench) -> None:
    record = bench.submit("poisoned")
    _wrong_type(bench, record)
    bench.tick()
    assert bench.access.studies.cancel(record.id)
    bench.tick()
    assert bench.access.studies.get("poisoned").state is StudyState.CANCELLED


def test_bug_in_a_tick_is_logged_and_is_no_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only an outage makes the reaper wait for a whole lease again."""
    bench.tick()
    steady_since = bench.service._steady_since
    for error, expected in ((RuntimeError("a bug"), steady_since), (ServiceUnavailable("away"), None)):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(bench.service._executor, "execute", fail)
        bench.service.serve(OneRound())
        assert bench.service._steady_since == expected
    assert "action=tick_failed" in caplog.text and "a bug" in caplog.text


class OneRound(threading.Event):
    """Lets `serve` tick once."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


def test_study_deleted_in_optuna_closes_as_deleted(bench: Bench) -> None:
    record = bench.submit("gone")
    bench.tick()
    optuna.delete_study(study_name="gone", storage=bench.access.database.url)
    for _ in range(3):
        bench.tick()
    found = bench.access.studies.get("gone")
    assert (found.state, found.stop_reason) == (StudyState.FINISHED, "deleted")
    assert bench.access.studies.counts(record.id).by_state == {TicketState.CANCELLED: N_TRIALS}
