"""PostgreSQL ends a session before and after each statement that a start or a finish writes: the books are as before
the call, and the same call again has the same end as without a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.lease import Disposition, Lease
from highnoon.shared.domain.states import TicketState
from highnoon.shared.domain.trial import Report
from tests.contract.test_model import read
from tests.ledger import ANNA, DONE, KILLED, Ledger, point

WRITTEN = (
    *("hn_tickets", "hn_attempts", "trials", "trial_params", "trial_user_attributes", "trial_system_attributes"),
    *("trial_values", "trial_intermediate_values"),
)
CRASH = """
create table crash (at integer not null);
insert into crash values (0);
create function crash_here() returns trigger language plpgsql as $$
declare
    v_number integer := coalesce(nullif(current_setting('test.statement', true), '')::integer, 0) + 1;
begin
    perform set_config('test.statement', v_number::text, true);
    if v_number = (select at from crash) then
        perform pg_terminate_backend(pg_backend_pid());
        perform pg_sleep(10);
    end if;
    return null;
end $$;
"""
REPORTS = [Report(value=1.0, step=0), Report(value=2.0, step=1)]
NEW = point(1.0, user_attrs={"by": "test"}, system_attrs={"more": 1})


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Ledger]:
    ledger = Ledger(postgres_url)
    with ledger.database.transaction() as connection:
        connection.exec_driver_sql(CRASH)
        for table in WRITTEN:
            for when in ("before", "after"):
                connection.exec_driver_sql(
                    f"create trigger crash_{when} {when} insert or update on {table} "
                    "for each statement execute function crash_here()"
                )
    yield ledger
    ledger.close()


def crash_at(ledger: Ledger, statement: int) -> None:
    with ledger.database.transaction() as connection:
        connection.execute(text("update crash set at = :at"), {"at": statement})


def crashes(ledger: Ledger, call: Callable[[], object], unchanged: Callable[[], Any]) -> int:
    """Crashes the call at each of its points, until it gets through; how many there were."""
    before = unchanged()
    for number in range(1, 100):
        crash_at(ledger, number)
        try:
            call()
        except ServiceUnavailable:
            crash_at(ledger, 0)
            assert unchanged() == before, f"the crash at point {number} has left something"
        else:
            return number - 1
    raise AssertionError("it never got through")


def test_start_is_whole_or_not_at_all_wherever_it_crashes(ledger: Ledger) -> None:
    study = ledger.study(2)
    ticket, other = ledger.tickets(study)
    candidate = ledger.look(ticket)
    points = crashes(ledger, lambda: ledger.start_at(candidate, ANNA, NEW), lambda: read(ledger, study))
    assert points >= 2 * 6, "trial, parameters, attributes of two kinds, ticket, attempt"
    crash_at(ledger, 0)
    lease = ledger.start_at(candidate, ANNA, NEW)
    assert isinstance(lease, Lease) and lease.attempt == 1 and lease.trial_number == 0
    assert ledger.start(other).trial_number == 1
    trial = ledger.trial(lease)
    assert (trial.params, trial.user_attrs["by"]) == ({"x": 1.0}, "test")


def test_start_of_an_enqueued_trial_leaves_it_waiting_when_it_crashes(ledger: Ledger) -> None:
    study = ledger.study(1)
    ledger.optuna().enqueue_trial({"x": 1.0})
    candidate = ledger.look(ledger.tickets(study)[0])
    assert candidate.waiting is not None
    new = point(1.0, waiting_trial_id=candidate.waiting.trial_id)
    assert crashes(ledger, lambda: ledger.start_at(candidate, ANNA, new), lambda: read(ledger, study)) >= 10
    assert len(ledger.optuna().get_trials()) == 1


@pytest.mark.parametrize(
    ("outcome", "disposition", "state"),
    [(DONE, Disposition.CLOSE, TicketState.CLOSED), (KILLED, Disposition.RETRY, TicketState.WAITING)],
)
def test_finish_is_whole_or_not_at_all_wherever_it_crashes(
    ledger: Ledger, outcome: Any, disposition: Disposition, state: TicketState
) -> None:
    study = ledger.study(1)
    (ticket,) = ledger.tickets(study)
    lease = ledger.start(ticket)

    def finish() -> str | None:
        return ledger.finish(lease, outcome, disposition, token="token", reports=REPORTS)

    points = crashes(ledger, finish, lambda: (read(ledger, study), len(ledger.trial(lease).intermediate_values)))
    assert points >= 2 * 5, "reports, trial, its attributes, ticket, attempt"
    crash_at(ledger, 0)
    assert finish() is None and ledger.state(ticket) == state
    assert ledger.trial(lease).state.is_finished() and len(ledger.trial(lease).intermediate_values) == 2
