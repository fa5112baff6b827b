"""Faults in the middle of a study of 40 trials: each story ends with balanced books.

One coordinator and one node serve them; a story that kills one of them starts the next.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.runtime.processes import identify
from tests.cluster import Books, Cluster, running_cluster
from tests.conftest import new_stack
from tests.support import eventually

N_TRIALS = 40


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("faults")
    with running_cluster(stack, folder, {"TEST_GO_FOLDER": str(folder)}) as cluster:
        yield cluster


def begin(cluster: Cluster, books: Books, name: str) -> None:
    """A study in its middle: some trials are closed, some run, some wait."""
    cluster.submit_here("slow_unless_held", N_TRIALS, name=name)
    eventually(lambda: books.closed(name) >= 4, 60, what="four trials are closed")


@contextmanager
def a_held_slot(cluster: Cluster, name: str) -> Iterator[dict[str, Any]]:
    """The note of a slot whose trial does not end before this block does."""
    hold = cluster.folder / f"{name}.hold"
    hold.touch()

    def held() -> dict[str, Any] | None:
        return next((note for note in cluster.slots() if hold.with_suffix(f".{note['trial_group']}").exists()), None)

    try:
        yield eventually(held, 60, what="a trial is held")
    finally:
        hold.unlink()


def test_a_study_without_faults(cluster: Cluster, books: Books, name: str) -> None:
    begin(cluster, books, name)
    assert books.wait_until_over(name).stop_reason == "n_trials"
    books.assert_balanced(name, N_TRIALS)
    trials = books.trials(name)
    assert len(trials) == N_TRIALS
    assert all(trial.state is TrialState.COMPLETE and len(trial.reports) == 1 for trial in trials)


def test_a_real_pruner_prunes_through_the_whole_chain(cluster: Cluster, books: Books, name: str) -> None:
    pruner = {"name": "median", "n_startup_trials": 3}
    cluster.submit_here("reports_and_prunes", 20, name=name, pruner=pruner)
    books.wait_until_over(name)
    books.assert_balanced(name, 20)
    trials = books.trials(name)
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    assert pruned and len(trials) == 20
    assert all(trial.reports and trial.value == trial.reports[-1].value for trial in pruned)
    assert {trial.state for trial in trials} == {TrialState.PRUNED, TrialState.COMPLETE}


def test_kill_9_of_a_trial_process(cluster: Cluster, books: Books, name: str) -> None:
    begin(cluster, books, name)
    with a_held_slot(cluster, name) as note:
        os.kill(note["trial_group"], signal.SIGKILL)
    books.wait_until_over(name)
    books.assert_balanced(name, N_TRIALS)
    attempts = books.attempts(name)
    killed = [attempt for attempt in attempts if attempt.ending is Ending.KILLED]
    assert [(attempt.signal, attempt.cause) for attempt in killed] == [("SIGKILL", "signal")]
    trials = {trial.number: trial for trial in books.trials(name)}
    assert len(trials) == N_TRIALS + 1
    (retry,) = [a for a in attempts if a.ticket_id == killed[0].ticket_id and a.attempt == 2]
    assert killed[0].trial_number is not None and retry.trial_number is not None
    assert trials[retry.trial_number].params == trials[killed[0].trial_number].params, "the same point is tried again"


def test_kill_9_of_a_supervisor(cluster: Cluster, books: Books, name: str) -> None:
    begin(cluster, books, name)
    with a_held_slot(cluster, name) as note:
        os.kill(note["pid"], signal.SIGKILL)
        eventually(lambda: identify(note["trial_group"]) is None, what="its trial is gone")
    books.wait_until_over(name)
    books.assert_balanced(name, N_TRIALS)
    lost = [attempt for attempt in books.attempts(name) if attempt.ending is Ending.LOST]
    assert [attempt.message for attempt in lost] == [
        f"its supervisor (pid {note['pid']} on {os.uname().nodename}) died"
    ], "the agent releases the lease at once, before the reaper would"


def test_kill_9_of_a_whole_worker(cluster: Cluster, books: Books, name: str) -> None:
    begin(cluster, books, name)
    with a_held_slot(cluster, name):
        notes = cluster.slots()
        cluster.kill(cluster.latest("workers"))
        for note in notes:
            eventually(lambda note=note: identify(note["pid"]) is None, what="supervisors follow their agent")
            eventually(lambda note=note: identify(note["trial_group"]) is None, what="trials follow theirs")
    cluster.start_worker()
    books.wait_until_over(name)
    books.assert_balanced(name, N_TRIALS)


def test_kill_9_of_the_coordinator(cluster: Cluster, books: Books, name: str) -> None:
    begin(cluster, books, name)
    cluster.kill(cluster.latest("coordinator"))
    cluster.start_coordinator()
    books.wait_until_over(name)
    books.assert_balanced(name, N_TRIALS)
    assert len(books.trials(name)) == N_TRIALS, "no attempt was lost"


def test_flushall_on_redis(cluster: Cluster, books: Books, name: str) -> None:
    begin(cluster, books, name)
    with redis.Redis.from_url(cluster.redis_url) as client:
        client.flushall()
    books.wait_until_over(name)
    books.assert_balanced(name, N_TRIALS)
    assert len(books.trials(name)) == N_TRIALS, "no trial ran twice"


def test_a_supervisor_that_sleeps_past_its_lease_writes_nothing_when_it_wakes(
    cluster: Cluster, books: Books, name: str
) -> None:
    # Given a supervisor that is stopped in the middle of its trial
    begin(cluster, books, name)
    with a_held_slot(cluster, name) as note:
        os.kill(note["pid"], signal.SIGSTOP)

        # When its lease is reaped, and only then it wakes
        def reaped() -> bool:
            return any(
                attempt.ticket_id == note["ticket"] and attempt.ending is Ending.LOST
                for attempt in books.attempts(name)
            )

        try:
            eventually(reaped, 40, what="the lease of the sleeper is reaped")
        finally:
            os.kill(note["pid"], signal.SIGCONT)

        # Then it kills its trial and its slot goes on with other work
        eventually(lambda: identify(note["trial_group"]) is None, what="the zombie's trial is gone")
    books.wait_until_over(name)
    books.assert_balanced(name, N_TRIALS)


def test_postgres_away_for_longer_than_a_lease(tmp_path: Path) -> None:
    # Given a stack of its own, and a study whose running trials wait for a sign
    go = tmp_path / "go"
    with new_stack() as stack:
        cluster = Cluster(stack.database_url, stack.redis_url, tmp_path, {"TEST_GO_FILE": str(go)})
        try:
            cluster.start_coordinator()
            cluster.start_worker()
            name = eventually(lambda: _submitted(cluster), 30)
            eventually(lambda: len(cluster.slots()) == 2, 60, what="two trials are running")
            running = cluster.slots()

            # When PostgreSQL is away for longer than a lease and comes back
            stack.postgres.stop()
            wait_out(5.0)
            stack.postgres.start()
            with cluster.books() as books:
                # (time enough for a reaper that does not know rule 8)
                wait_out(2.0)
                go.touch()
                books.wait_until_over(name)

                # Then no healthy attempt was reaped
                books.assert_balanced(name, N_TRIALS)
                attempts = books.attempts(name)
                assert [attempt for attempt in attempts if attempt.ending is Ending.LOST] == []
                assert {note["ticket"] for note in running} <= {a.ticket_id for a in attempts if a.attempt == 1}
                assert len(books.trials(name)) == N_TRIALS
        finally:
            cluster.stop()
            print(cluster.logs())


def _submitted(cluster: Cluster) -> str | None:
    try:
        return cluster.submit("patient", N_TRIALS)
    except AssertionError as refused:
        # The coordinator has not made the tables yet.
        assert "yet: start a coordinator" in str(refused)
        return None


def wait_out(seconds: float) -> None:
    """Lets a period pass that is the fact under test: an outage, or a lease."""
    deadline = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > deadline, seconds + 10)
