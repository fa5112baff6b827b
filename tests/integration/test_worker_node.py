"""The life of a node: it drains, recycles its children, survives its pool, waits for its services, and leaves no trace.

One coordinator serves the module; each story starts nodes of its own.
"""

from __future__ import annotations

import itertools
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending, TicketState, WorkerState
from highnoon.shared.runtime.processes import identify
from highnoon.shared.runtime.terminal import Exit
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.nodes import Worker
from highnoon.shared.store.schema import tickets, workers
from tests.cluster import Books, Cluster, running_cluster
from tests.conftest import new_stack
from tests.ports import free_port
from tests.support import eventually

Node = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def served(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without nodes."""
    with running_cluster(stack, tmp_path_factory.mktemp("nodes"), slots=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def books(served: Cluster) -> Iterator[Books]:
    with served.books() as books:
        yield books


@pytest.fixture
def cluster(served: Cluster, books: Books, tmp_path: Path) -> Iterator[Cluster]:
    """The same for one story: its nodes have a home of their own, and no study of it is left to others."""
    cluster = Cluster(served.database_url, served.redis_url, tmp_path)
    yield cluster
    cluster.stop()
    for record in books.studies.all():
        books.studies.cancel(record.id)
    print(cluster.logs())


def attempts_of(books: Books, name: str) -> list[AttemptRecord]:
    return books.studies.attempts(books.studies.get(name).id)


def present(books: Books) -> list[Worker]:
    return books.nodes.workers(silent_for_s=5.0)


def log_of(cluster: Cluster, node: Node) -> str:
    return (cluster.folder / f"workers-{cluster.processes.index(node)}.log").read_text()


def wait_for_slots(cluster: Cluster, count: int) -> list[dict[str, int]]:
    eventually(lambda: len(cluster.slots()) == count, 60, what=f"{count} trials run")
    return cluster.slots()


def folders(cluster: Cluster) -> list[Path]:
    return list((cluster.folder / "home" / "nodes").glob("*"))


def wait_for_touch(folder: Path) -> None:
    touched = (folder / "health").stat().st_mtime_ns
    eventually(lambda: (folder / "health").stat().st_mtime_ns > touched, what="the health file is touched again")


def state_of(books: Books, node: Node) -> str | None:
    """Of the node's row in the ledger; its agent is the process that was started."""
    with books.transaction() as connection:
        return connection.scalar(select(workers.c.state).where(workers.c.pid == node.pid))


def states_of(books: Books, name: str) -> Mapping[TicketState, int]:
    return books.studies.counts(books.studies.get(name).id).by_state


def losses_of(books: Books, name: str) -> int:
    with books.transaction() as connection:
        query = select(tickets.c.infrastructure_failures).where(tickets.c.study_id == books.studies.get(name).id)
        return sum(connection.scalars(query))


# --- draining ---------------------------------------------------------------------------------------------------------


def test_drained_node_finishes_running_trials_and_starts_nothing_and_so_does_one_signalled_as_a_whole(
    cluster: Cluster, books: Books, name: str, tmp_path: Path
) -> None:
    # Given a node in the middle of a study, which touches its health file
    go = tmp_path / "go"
    node = cluster.start_worker(HIGHNOON_DRAIN_S="60", TEST_GO_FILE=str(go))
    cluster.submit_here("patient", 6, name=name)
    wait_for_slots(cluster, 2)
    supervisors = [note["pid"] for note in cluster.slots()]
    (folder,) = folders(cluster)
    wait_for_touch(folder)

    # When a person drains it, and it gets SIGTERM meanwhile
    assert books.nodes.drain(folder.name, "for an upgrade")
    eventually(lambda: "action=drain " in log_of(cluster, node), what="the node has the order")
    node.send_signal(signal.SIGTERM)
    for _ in range(2):  # it has received the signal by the second
        wait_for_touch(folder)
    go.touch()

    # Then what ran has ended, nothing more was claimed, and the node is gone
    assert node.wait(120) == Exit.OK, log_of(cluster, node)
    assert state_of(books, node) == WorkerState.GONE
    assert folders(cluster) == []
    assert [left for pid in supervisors for left in Path("/sys/fs/cgroup").glob(f"**/highnoon-{pid}-*")] == []
    assert [(a.attempt, a.ending) for a in attempts_of(books, name)] == [(1, Ending.COMPLETED)] * 2

    # And another one ends the study
    node = cluster.start_worker(HIGHNOON_DRAIN_S="60", TEST_GO_FILE=str(go))
    books.wait_until_over(name)
    books.assert_balanced(name, 6)
    assert losses_of(books, name) == 0 and len(attempts_of(books, name)) == 6

    # When every process of that one gets SIGTERM, as from a service manager that signals a whole control group
    go.unlink()
    cluster.submit_here("patient", 2, name=f"{name}-again")
    wait_for_slots(cluster, 2)
    agent = psutil.Process(node.pid)
    others = agent.children(recursive=True)
    assert len(others) == 2 + 2 + 2 + 2, "a pool, its template, two supervisors, two fork servers, two trials"
    agent.terminate()
    eventually(lambda: state_of(books, node) == WorkerState.DRAINING, what="the database has it as draining")
    for other in others:
        other.terminate()

    # Then it drains
    assert node.wait(120) == Exit.OK, log_of(cluster, node)
    assert [attempt.ending for attempt in attempts_of(books, f"{name}-again")] == [Ending.RELEASED] * 2
    assert set(states_of(books, f"{name}-again")) <= {TicketState.WAITING, TicketState.QUEUED}
    assert losses_of(books, f"{name}-again") == 0


def test_drain_shorter_than_its_trials_releases_their_tickets(cluster: Cluster, books: Books, tmp_path: Path) -> None:
    # Given a trial that ends when it is asked to, and one that has to be killed
    node = cluster.start_worker(HIGHNOON_DRAIN_S="0.2", TEST_GO_FILE=str(tmp_path / "never"))
    names = [cluster.submit_here(objective, 1, name=f"drained-{objective}") for objective in ("patient", "hangs_in_c")]
    notes = wait_for_slots(cluster, 2)

    # When their node drains
    node.send_signal(signal.SIGTERM)
    assert node.wait(120) == Exit.OK, log_of(cluster, node)

    # Then both are gone, and their tickets wait for another node
    assert [identify(note["trial_group"]) for note in notes] == [None, None]
    assert folders(cluster) == []
    for name in names:
        assert [attempt.ending for attempt in attempts_of(books, name)] == [Ending.RELEASED]
        assert set(states_of(books, name)) <= {TicketState.WAITING, TicketState.QUEUED}
        assert losses_of(books, name) == 0


# --- children ---------------------------------------------------------------------------------------------------------


def test_recycled_supervisors_lose_nothing_and_are_replaced_at_once_and_an_idle_node_leaves(
    cluster: Cluster, books: Books, name: str
) -> None:
    """workers/celery_patch.py: without it Celery takes 5 s for most replacements in a node of one slot."""
    node = cluster.start_worker(slots=1, HIGHNOON_MAX_TASKS_PER_CHILD="1")
    cluster.submit_here("noop", 8, name=name)
    books.wait_until_over(name)
    books.assert_balanced(name, 8)
    attempts = attempts_of(books, name)
    assert [attempt.attempt for attempt in attempts] == [1] * 8
    assert len({attempt.pid for attempt in attempts}) == 8
    # From one attempt to the next: the trial, the new process and its first connections are in it. One may be slow.
    gaps = [after.started_at - before.started_at for before, after in itertools.pairwise(attempts)]
    assert statistics.median(gaps) < 4.5, gaps

    # And the node, which has nothing more to do, leaves on SIGTERM
    began = time.monotonic()
    node.send_signal(signal.SIGTERM)
    assert node.wait(120) == Exit.OK
    print(f"the idle node left after {time.monotonic() - began:.2f} s")
    assert state_of(books, node) == WorkerState.GONE and folders(cluster) == []
    assert "ERROR" not in log_of(cluster, node)


def test_kill_9_of_the_pool_gives_its_leases_back_at_once_and_so_does_a_second_signal(
    cluster: Cluster, books: Books, name: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    lease = {"HIGHNOON_LEASE_S": "600", "HIGHNOON_RENEW_S": "1"}
    node = cluster.start_worker(TEST_GO_FILE=str(go), HIGHNOON_DRAIN_S="600", **lease)
    cluster.submit_here("patient", 4, name=name)
    notes = wait_for_slots(cluster, 2)
    (pool,) = psutil.Process(node.pid).children()
    pool.kill()
    for note in notes:
        eventually(lambda note=note: identify(note["trial_group"]) is None, what="its trials are gone")
    go.touch()
    books.wait_until_over(name)
    books.assert_balanced(name, 4)
    endings = Counter(attempt.ending for attempt in attempts_of(books, name))
    assert endings == {Ending.LOST: 2, Ending.COMPLETED: 4}
    assert node.poll() is None, "its agent has started another pool"

    # When it drains in the middle of the next study, and gets a second signal
    go.unlink()
    cluster.submit_here("patient", 2, name=f"{name}-again")
    wait_for_slots(cluster, 2)
    node.send_signal(signal.SIGTERM)
    eventually(lambda: state_of(books, node) == WorkerState.DRAINING, what="the database has it as draining")
    assert len(cluster.slots()) == 2 and node.poll() is None
    node.send_signal(signal.SIGTERM)
    assert node.wait(120) == Exit.OK, log_of(cluster, node)
    assert [attempt.ending for attempt in attempts_of(books, f"{name}-again")] == [Ending.RELEASED] * 2
    assert losses_of(books, f"{name}-again") == 0


def test_a_preload_that_is_missing_ends_the_node_with_a_clear_message(cluster: Cluster) -> None:
    node = cluster.start_worker(HIGHNOON_PRELOAD="json,no_such_module")
    assert node.wait(120) == Exit.POOL_BROKEN
    said = log_of(cluster, node)
    assert "cannot import 'no_such_module'" in said and "HIGHNOON_PRELOAD lists it" in said
    assert "Traceback" not in said
    assert folders(cluster) == []


# --- services that are away at the start ------------------------------------------------------------------------------


def test_services_that_come_late_are_waited_for(tmp_path: Path) -> None:
    with new_stack() as stack:
        # Given addresses at which nothing answers
        cluster = Cluster(stack.database_url, stack.redis_url, tmp_path)
        stack.redis.stop()
        stack.postgres.stop()
        try:
            cluster.start_coordinator()
            node = cluster.start_worker()
            said = cluster.folder / "coordinator-0.log"
            eventually(lambda: "waiting: database" in said.read_text(), 30, what="the coordinator logs it")
            eventually(lambda: "waiting_for_database" in log_of(cluster, node), 30, what="the node logs it")

            # When PostgreSQL comes, and a study is submitted
            stack.postgres.start()
            eventually(lambda: "waiting: Redis" in said.read_text(), 30, what="the coordinator waits for Redis now")
            eventually(lambda: "action=enter" in log_of(cluster, node), 30, what="the node has entered")
            eventually(lambda: "Cannot connect to redis" in log_of(cluster, node), 30, what="the node logs it")
            cluster.submit_here("noop", 4, name="late")

            # Then it runs as soon as Redis is there
            stack.redis.start()
            with cluster.books() as books:
                books.wait_until_over("late")
                books.assert_balanced("late", 4)

                # And when Redis goes away later, that is said once, and the next study waits for it
                stack.redis.stop()
                cluster.submit_here("noop", 4, name="later")
                eventually(lambda: "during=messages" in said.read_text(), 30, what="the coordinator logs it")
                stack.redis.start()
                books.wait_until_over("later")
                books.assert_balanced("later", 4)
                assert said.read_text().count("during=messages") == 1
        finally:
            cluster.stop()
            print(cluster.logs())


def test_process_that_waits_for_a_database_ends_on_sigterm(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    cluster = Cluster(f"postgresql://user:secret@{nowhere}/db", f"redis://:secret@{nowhere}/0", tmp_path)
    try:
        processes = [cluster.start_coordinator(), cluster.start_worker()]
        for log in ("coordinator-0.log", "workers-1.log"):
            said = cluster.folder / log
            eventually(lambda said=said: "waiting" in said.read_text(), 30, what="it logs that it waits")
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(120) for process in processes] == [Exit.INTERRUPTED, Exit.OK]
        assert "secret" not in cluster.logs() and "Traceback" not in cluster.logs()
        assert folders(cluster) == []
    finally:
        cluster.stop()
        print(cluster.logs())


def test_node_whose_redis_is_away_ends_on_sigterm(cluster: Cluster, books: Books) -> None:
    node = cluster.start_worker(HIGHNOON_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    eventually(lambda: "Cannot connect to redis" in log_of(cluster, node), 30, what="it logs that Redis is away")
    node.send_signal(signal.SIGTERM)
    assert node.wait(120) == Exit.OK
    assert state_of(books, node) == WorkerState.GONE and folders(cluster) == []


def test_node_that_fails_where_others_do_not_is_quarantined_until_it_is_reinstated(
    cluster: Cluster, books: Books, name: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    cluster.start_worker(slots=1, TEST_BROKEN=str(broken))
    cluster.start_worker()
    eventually(lambda: len(present(books)) == 2, 60, what="both nodes are there")
    cluster.submit_here("fails_where_broken", 60, name=name, max_failures_in_a_row=0)

    def in_quarantine() -> list[Worker]:
        return [worker for worker in present(books) if worker.state is WorkerState.QUARANTINED]

    eventually(lambda: len(in_quarantine()) == 1, 60, what="the broken node is in quarantine")
    (worker,) = in_quarantine()
    assert re.search(r"its last \d+ attempts failed \(exception \d+\)", worker.state_reason or "")
    eventually(lambda: books.studies.get(name).is_over, 60, what="the other node ends the study")
    endings = Counter((attempt.worker_id == worker.id, attempt.ending) for attempt in attempts_of(books, name))
    failed = endings[True, Ending.FAILED]
    assert endings == {(True, Ending.FAILED): failed, (False, Ending.COMPLETED): 60 - failed}
    # Some 17 until the decision, then what the node runs until its agent's next heartbeat.
    assert failed <= 50
    shown = cluster.cli("workers").stdout
    assert "quarantined" in shown and worker.state_reason and worker.state_reason in shown

    broken.unlink()
    back = cluster.cli("reinstate", worker.id[:8])
    assert (back.returncode, back.stdout) == (0, f"worker {worker.id[:8]} on {worker.host} gets trials again\n")
    assert cluster.cli("reinstate", worker.id[:8]).returncode == Exit.USER_INPUT
    cluster.submit_here("fails_where_broken", 1000, name=f"{name}_again", max_failures_in_a_row=0)

    def works_again() -> bool:
        return any(
            attempt.worker_id == worker.id and attempt.ending is Ending.COMPLETED
            for attempt in attempts_of(books, f"{name}_again")
        )

    eventually(works_again, 60, what="the node runs trials again")


def test_node_that_cannot_write_its_slot_state_declines_the_ticket(cluster: Cluster, books: Books, name: str) -> None:
    """Its disk is full, for instance: without its state the agent could not release its lease, so it takes none."""
    node = cluster.start_worker(slots=1)
    (folder,) = eventually(lambda: folders(cluster), 60, what="the node is there")
    slots = eventually(lambda: list(folder.glob("slots")), 60, what="it has a folder for its slots")[0]
    slots.rename(folder / "elsewhere")
    cluster.submit_here("good", 1, name=name)
    eventually(lambda: "action=disk" in log_of(cluster, node), 60, what="it logs that it cannot")
    assert attempts_of(books, name) == []
    (folder / "elsewhere").rename(slots)
    books.wait_until_over(name)
    assert [attempt.ending for attempt in attempts_of(books, name)] == [Ending.COMPLETED]
