"""A ledger of version 6 is upgraded while workers of that version go on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import Connection, select, text, update

from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import SCHEMA_VERSION, attempts, db_now, meta, studies, tickets
from tests.ledger import Ledger
from tests.support import eventually

_VERSION_6 = """
alter table hn_attempts drop column metric_history;
drop index hn_tickets_with_checkpoint;
drop function hn_renew_2;
create function hn_renew_1(
    p_ticket bigint, p_attempt integer, p_ttl double precision, p_step bigint, p_rss_bytes bigint, p_reports json
) returns boolean language plpgsql as $$
declare
    v_ticket record;
begin
    update hn_tickets set lease_expires_at = hn_now_1() + p_ttl, step = p_step, rss_bytes = p_rss_bytes
        where id = p_ticket and attempt = p_attempt and state = 'running'
        returning trial_id, cancel_requested into v_ticket;
    if not found then
        raise exception 'renew: the lease is lost' using errcode = 'HN001';
    end if;
    perform hn_write_reports_1(v_ticket.trial_id, p_reports);
    return v_ticket.cancel_requested;
end $$;
update hn_meta set value = '6';
"""

_RENEW_OF_VERSION_6 = (
    "select hn_renew_1(%(ticket)s, %(attempt)s, %(ttl)s, cast(%(step)s as bigint), cast(%(rss_bytes)s as bigint),"
    " cast(%(reports)s as json))"
)


@pytest.fixture
def old(ledger: Ledger) -> Ledger:
    with ledger.database.transaction() as connection:
        connection.exec_driver_sql(_VERSION_6)
    return ledger


@pytest.fixture
def upgrading(old: Ledger) -> Iterator[Database]:
    """The coordinator's connections."""
    with closing(Database(old.database.url)) as database:
        yield database


def test_upgrade_waits_for_transactions_of_workers_without_a_deadlock(old: Ledger, upgrading: Database) -> None:
    # Given the end of a trial: its ticket is updated
    lease = old.start(old.tickets(old.study())[0])
    with ThreadPoolExecutor(max_workers=1) as pool:
        with old.database.transaction() as connection:
            connection.execute(update(tickets).where(tickets.c.id == lease.ticket_id).values(step=7))
            # When the ledger is upgraded meanwhile
            upgrade = pool.submit(upgrading.create_schema)
            eventually(lambda: _waiting_for_a_lock(connection), what="the upgrade waits")
            # Then that transaction can read the study, as the triggers on tickets do, and update the attempt
            connection.execute(select(studies.c.spec))
            connection.execute(update(attempts).where(attempts.c.ticket_id == lease.ticket_id).values(cause="signal"))
        # And the upgrade goes on after it
        upgrade.result(timeout=60)
    assert _version(old) == SCHEMA_VERSION


def test_worker_of_the_version_before_renews_and_finishes_after_an_upgrade(old: Ledger, upgrading: Database) -> None:
    lease = old.start(old.tickets(old.study())[0])
    upgrading.create_schema()
    assert _version(old) == SCHEMA_VERSION

    old.expire(lease)
    values = {"ticket": lease.ticket_id, "attempt": lease.attempt, "ttl": 30.0, "step": 3, "rss_bytes": 100}
    assert old.database.call(_RENEW_OF_VERSION_6, **values, reports='[[1, 0.5, "FINITE"]]') is False
    assert not old.is_expired(lease)
    assert old.trial(lease).intermediate_values == {1: 0.5}

    old.finish(lease)
    assert old.state(lease.ticket_id) == "closed"


def test_ledger_of_this_version_is_not_locked_when_a_coordinator_starts(ledger: Ledger) -> None:
    lease = ledger.start(ledger.tickets(ledger.study())[0])
    with closing(Database(ledger.database.url)) as starting, ledger.database.transaction() as connection:
        connection.execute(update(tickets).where(tickets.c.id == lease.ticket_id).values(lease_expires_at=db_now()))
        starting.create_schema()


def _waiting_for_a_lock(connection: Connection) -> bool:
    waiting = "select exists (select from pg_locks where not granted and relation is not null)"
    return bool(connection.scalar(text(waiting)))


def _version(ledger: Ledger) -> int:
    with ledger.database.transaction() as connection:
        return int(connection.scalars(select(meta.c.value)).one())
