"""The memory of a study's newest trials, as a measured admission reads it for each message."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event, text

from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import MemoryTrace, Outcome
from highnoon.shared.store.node_queries import NodeQueries
from tests.ledger import FAILED, Ledger, add_closed_tickets

_ATTEMPTS = """
insert into hn_attempts (ticket_id, attempt, worker_id, host, pid, started_at, ended_at, ending, memory)
select id, 1, 'anna', 'node-a', 1, closed_at - 1, closed_at, 'completed', '{"peak_bytes": 7, "samples": []}'
from hn_tickets where study_id = :study and state = 'closed'
"""


def used(peak_bytes: int, ending: Ending = Ending.COMPLETED) -> Outcome:
    memory = MemoryTrace(peak_bytes=peak_bytes, limit_bytes=400, samples=())
    return Outcome(ending=ending, value=0.5 if ending is Ending.COMPLETED else None, memory=memory)


def test_peaks_of_trials_that_took_what_they_need_newest_first(ledger: Ledger) -> None:
    study, other = ledger.study(5), ledger.study(1, name="other")
    one, two, three, four, five = ledger.tickets(study)
    ledger.run(ledger.tickets(other)[0], used(1))
    ledger.run(one, used(100))
    ledger.run(two, used(300, Ending.STOPPED))
    ledger.run(three, FAILED)
    ledger.run(four, used(200))
    ledger.start(five)

    found = NodeQueries(ledger.database).memory_peaks(study.id, two)

    assert (found.peaks, found.own_peaks) == ((200, 300, 100), (300,))


def test_only_the_newest_tickets_of_a_long_study_are_read(ledger: Ledger) -> None:
    # Given a study of 20,000 trials whose memory was measured
    study = ledger.study(1)
    (ticket,) = ledger.tickets(study)
    add_closed_tickets(ledger.database, study.id, 20_000)
    with ledger.database.transaction() as connection:
        connection.execute(text(_ATTEMPTS), {"study": study.id})
        connection.execute(text("analyze hn_attempts"))
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        statements.append((statement, parameters))

    # When its peaks are looked up
    event.listen(ledger.database.engine, "before_cursor_execute", note)
    found = NodeQueries(ledger.database).memory_peaks(study.id, ticket)
    event.remove(ledger.database.engine, "before_cursor_execute", note)

    # Then few rows are read for them
    assert len(found.peaks) == 50
    read = text("select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables")
    with ledger.database.transaction() as connection:
        before = connection.scalar(read)  # of the transactions before this one
        for statement, parameters in statements:
            connection.exec_driver_sql(statement, parameters)
        rows = connection.scalar(read) - before
    assert rows < 1000
