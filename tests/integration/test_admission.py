"""A measured study waits for memory before it claims: no lease is held, no attempt made, no other study waits."""

from __future__ import annotations

from sqlalchemy import select

from highnoon.shared.store.schema import tickets
from tests.cluster import Books, Cluster
from tests.integration.test_watchdog import _attempts, books, cluster, node_group  # noqa: F401
from tests.support import eventually


def test_a_trial_that_would_not_fit_beside_what_runs_starts_when_it_is_over(
    cluster: Cluster,  # noqa: F811
    books: Books,  # noqa: F811
) -> None:
    # Given a node whose two slots share 384 MiB, of which one keeps 300 for a trial that runs
    filler = cluster.submit_here("holds_60_mib_and_waits", 1, name="filler", trial_memory_limit="300 MiB")
    eventually(cluster.slots, 60, what="the filler runs")
    # When a measured study asks for its share, and one that goes by slots comes after it
    measured = cluster.submit_here("holds_60_mib", 3, name="measured", admission="measured")
    eventually(lambda: _was_put_off(books, measured), 30, what="a ticket finds no room")
    by_slots = cluster.submit_here("noop", 2, name="by-slots")
    books.wait_until_over(by_slots)
    # Then it has waited without a lease
    assert _attempts(books, measured) == []
    assert not books.studies.get(filler).is_over
    # And starts when there is room, each ticket with its first attempt
    (cluster.folder / filler).touch()
    books.wait_until_over(measured)
    books.assert_balanced(measured, 3)
    (before,) = _attempts(books, filler)
    attempts = _attempts(books, measured)
    assert [attempt.attempt for attempt in attempts] == [1, 1, 1]
    assert before.ended_at is not None
    assert all(attempt.started_at >= before.ended_at for attempt in attempts)
    assert all(attempt.memory and attempt.memory.limit_bytes == 384 << 20 for attempt in attempts), "not only its share"


def _was_put_off(books: Books, name: str) -> bool:  # noqa: F811
    study_id = books.studies.get(name).id
    with books.transaction() as connection:
        times = connection.scalars(select(tickets.c.not_before).where(tickets.c.study_id == study_id))
        return any(time > 0 for time in times)
