"""A coordinator of this version on a ledger of an older one: what was under way stays accounted for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import inspect, select, text

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.lease import Disposition, Lease, Progress
from highnoon.shared.domain.states import Ending, TicketState
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store.database import Database
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.schema import metadata, tickets
from tests.ledger import ANNA, SPEC, Ledger

STOPPED = Outcome(ending=Ending.STOPPED, cause="memory_limit", message="too large", constraint=0.5, log_tail="the end")


class Older:
    """A ledger of version 3 with a study of ten tickets in every state, written as that version wrote them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)
        with OptunaStore(url) as store:
            store.create_study("digits", "minimize")
        with self.database.transaction() as connection:
            script = (Path(__file__).parent / "ledger_v3.sql").read_text()
            connection.exec_driver_sql(script, execution_options={"no_parameters": True})
            connection.execute(
                text(
                    "INSERT INTO hn_studies (name, spec, state, queue, submitted_at)"
                    " VALUES ('digits', CAST(:spec AS json), 'running', 'cpu', 1)"
                ),
                {"spec": json.dumps(SPEC)},
            )

    def trial(self, ticket: int, attempt: int, *, ended: bool = False) -> FrozenTrial:
        """As the version before created it and ended it in Optuna."""
        study = optuna.load_study(study_name="digits", storage=self.url)
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        trial.set_user_attr("highnoon:ticket", ticket)
        trial.set_user_attr("highnoon:attempt", attempt)
        if ended:
            study.tell(trial, 0.25)
        return study.get_trials()[trial.number]

    def ticket(self, ticket: int, state: str, attempt: int = 1, trial: FrozenTrial | None = None, **more: Any) -> None:
        row = {"id": ticket, "study_id": 1, "ordinal": ticket - 1, "state": state, "attempt": attempt, "losses": 1}
        row |= {"errors": 0, "not_before": 0.0, **more}
        if trial is not None:
            row |= {"trial_id": trial._trial_id, "trial_number": trial.number, "params": json.dumps(trial.params)}
        with self.database.transaction() as connection:
            values = ", ".join(f":{key}" for key in row)
            connection.execute(text(f"INSERT INTO hn_tickets ({', '.join(row)}) VALUES ({values})"), row)

    def attempt(self, ticket: int, attempt: int, trial: FrozenTrial | None, ending: str | None = None) -> None:
        number = None if trial is None else trial.number
        with self.database.transaction() as connection:
            connection.execute(
                text(
                    "INSERT INTO hn_attempts"
                    " (ticket_id, attempt, worker_id, host, pid, trial_number, started_at, ending)"
                    " VALUES (:ticket, :attempt, 'anna', 'node-a', 1, :number, 1, :ending)"
                ),
                {"ticket": ticket, "attempt": attempt, "number": number, "ending": ending},
            )


@pytest.fixture
def older(postgres_url: str) -> Iterator[Older]:
    older = Older(postgres_url)
    yield older
    older.database.close()


def upgraded(older: Older) -> Ledger:
    with pytest.raises(ServiceUnavailable, match="start a coordinator of this version"):
        older.database.check_schema()
    return Ledger(older.url)


def outcome_of(outcome: Outcome) -> str:
    return json.dumps(outcome.to_json())


def test_tickets_in_every_state_are_accounted_for(older: Older) -> None:
    # Given closed, settled (Optuna has it, not yet, or as something else), leased (bound, or just created), waiting
    done = Outcome(ending=Ending.COMPLETED, value=0.25)
    trials = {ticket: older.trial(ticket, 1, ended=ticket in (1, 3)) for ticket in (1, 2, 3, 4, 5, 6)}
    older.ticket(1, "closed", 1, trials[1], ending="completed", value=0.25, outcome=outcome_of(done), settled_at=5.0)
    older.ticket(2, "settled", 1, trials[2], ending="stopped", outcome=outcome_of(STOPPED), settled_at=6.0)
    older.ticket(3, "settled", 1, trials[3], ending="completed", value=0.5, settled_at=7.0,
                 outcome=outcome_of(Outcome(ending=Ending.COMPLETED, value=0.5)))  # fmt: skip
    older.ticket(4, "settled", 1, trials[4], ending="evaporated", outcome='{"ending": "evaporated"}', settled_at=8.0)
    older.ticket(5, "leased", 1, trials[5], worker_id="anna", lease_expires_at=4e9)
    older.ticket(6, "leased", 1, worker_id="anna", lease_expires_at=1.0)
    older.ticket(7, "waiting", 2, older.trial(7, 2))
    older.ticket(8, "queued", 0, queued_at=3.0)
    older.ticket(9, "cancelled", 0)
    older.ticket(10, "settled", 1, None, ending="lost", outcome=outcome_of(Outcome(ending=Ending.LOST)), settled_at=9.0)
    for ticket in (1, 2, 3, 4, 5, 10):
        older.attempt(ticket, 1, trials.get(ticket), ending=None if ticket == 5 else "completed")
    older.attempt(6, 1, None)

    # When a coordinator of this version starts
    with closing(upgraded(older)) as ledger:
        # Then what was settled is closed at its time, and its trial has ended with its outcome
        states = [ledger.state(ticket) for ticket in range(1, 11)]
        assert states == [*["closed"] * 4, "running", "running", "waiting", "queued", "cancelled", "closed"]
        found = {trial.user_attrs["highnoon:ticket"]: trial for trial in ledger.optuna().get_trials()}
        assert [trial.state for trial in found.values()] == [
            TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL,
            TrialState.RUNNING, TrialState.RUNNING, TrialState.FAIL,
        ]  # fmt: skip
        assert found[2].constraints == {"memory": 0.5}
        assert (found[2].user_attrs["highnoon:cause"], found[2].user_attrs["highnoon:message"]) == (
            "memory_limit", "too large",
        )  # fmt: skip
        assert found[3].value == 0.25, "the value in Optuna stays"
        foreign = {attempt.ticket_id: attempt.foreign_ending for attempt in ledger.studies.attempts(1)}
        assert (foreign[2], foreign[3]) == (None, "COMPLETE 0.25")
        with ledger.database.transaction() as connection:
            closed = select(tickets.c.id, tickets.c.closed_at).where(tickets.c.state == TicketState.CLOSED)
            assert {row.id: row.closed_at for row in connection.execute(closed)} == {
                1: None, 2: 6.0, 3: 7.0, 4: 8.0, 10: 9.0
            }  # fmt: skip
        counts = ledger.studies.counts(1)
        assert (counts.closed, counts.running) == (5, 2)
        assert ledger.studies.get("digits").optuna_study_id is not None

        # Then the holder of a lease goes on, and the attempt that had just created its trial is reaped with it
        lease = Lease(
            ticket_id=5, attempt=1, spec=SPEC, ordinal=4, infrastructure_failures=1, errors=0,
            ttl_s=30.0, trial_id=found[5]._trial_id, trial_number=found[5].number,
            params=found[5].params,
        )  # fmt: skip
        assert not ledger.attempts.renew(lease, Progress())
        ledger.finish(lease)
        assert ledger.trial(lease).state is TrialState.COMPLETE
        assert [expired.ticket_id for expired in ledger.snapshot.expiring(within_s=0.0)] == [6]
        assert ledger.attempts.reap(6, 1, message="gone", only_expired=True) is Disposition.RETRY
        assert not ledger.optuna().get_trials(states=(TrialState.RUNNING,))

        # Then new attempts start as ever
        candidate = ledger.look(7)
        assert candidate.before is not None and candidate.infrastructure_failures == 1
        assert ledger.start(7, ANNA).attempt == 3


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_older_version_gets_the_tables_of_a_new_one(older: Older, version: int, ledger: Ledger) -> None:
    with older.database.transaction() as connection:
        if version < 3:
            connection.exec_driver_sql("ALTER TABLE hn_workers DROP COLUMN reinstated_at")
            connection.exec_driver_sql("DROP INDEX hn_attempts_of_worker")
        if version < 2:
            connection.exec_driver_sql("ALTER TABLE hn_attempts DROP COLUMN memory, DROP COLUMN code")
            connection.exec_driver_sql("ALTER TABLE hn_workers DROP COLUMN facts, DROP COLUMN state_reason")
            connection.exec_driver_sql("DROP TABLE hn_bundles")
        connection.exec_driver_sql(f"UPDATE hn_meta SET value = '{version}'")
    with closing(upgraded(older)) as brought_up:
        assert shape_of(brought_up.database) == shape_of(ledger.database)
        brought_up.database.create_schema()


def shape_of(database: Database) -> dict[str, Any]:
    """Columns, constraints and indexes of all tables of the ledger, in no order."""
    with database.transaction() as connection:
        found = inspect(connection)
        return {
            table.name: (
                {column["name"]: (str(column["type"]), column["nullable"]) for column in found.get_columns(table.name)},
                {check["name"]: check["sqltext"] for check in found.get_check_constraints(table.name)},
                sorted(str(index) for index in found.get_indexes(table.name)),
            )
            for table in metadata.sorted_tables
        }
