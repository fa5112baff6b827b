"""Trials that do not fit, on a kernel that keeps their limit and on one that leaves it to us.

Each ends within two seconds of crossing its limit, with the cause that it has, and nothing of it is left.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.store.access import opened
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.workers.monitor.kill_selection import KillRecords
from highnoon.workers.monitor.memory_policy import TrialLimits
from highnoon.workers.monitor.trial_cgroups import TrialGroup, TrialGroups
from highnoon.workers.monitor.trial_memory import TrialMemory
from tests.cluster import Books, Cluster
from tests.conftest import empty_database
from tests.integration.test_trial_process import Diary, begin
from tests.support import eventually

MIB = 1 << 20
EATS = "held = bytearray()"
LIMIT = 200 * MIB


@dataclass
class Bench:
    """Runs objectives under a limit of 200 MiB."""

    folder: Path
    group: TrialGroup | None

    def outcome_of(self, objective: str, soft_bytes: int = LIMIT) -> Outcome:
        attempt = begin(self.folder, objective, cgroup=self.group.procs if self.group else None)
        pid = attempt.trial.pid
        assert pid is not None
        limits = TrialLimits(hard_bytes=LIMIT, soft_bytes=soft_bytes, share_bytes=LIMIT)
        memory = TrialMemory(pid, limits, MemoryPoller(), KillRecords(self.folder), group=self.group)
        return attempt.watch(Diary(), memory=memory, trial_timeout_s=30.0, kill_grace_s=1.0)


@pytest.fixture(params=["cgroup", "watchdog"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    groups = TrialGroups.prepare() if request.param == "cgroup" else None
    if request.param == "cgroup" and groups is None:
        pytest.skip("this machine does not let us make cgroups: no root, a read-only mount, or no memory controller")
    group = groups.make(LIMIT) if groups else None
    yield Bench(tmp_path, group)
    if group is not None:
        assert group.remove()


@pytest.mark.parametrize("objective", ["allocates_three_times", "grows_holding_the_gil", "feeds_a_child"])
def test_a_trial_that_crosses_its_limit_is_ended_with_its_cause(bench: Bench, objective: str) -> None:
    outcome = bench.outcome_of(objective)
    assert outcome.ending is Ending.STOPPED, outcome
    assert outcome.cause == ("oom_kernel" if bench.group else "memory_limit")
    assert outcome.constraint is not None and outcome.constraint > 0
    assert outcome.memory is not None and outcome.memory.limit_bytes == LIMIT
    assert outcome.memory.peak_bytes >= 0.98 * LIMIT
    over = [at_s for at_s, used in outcome.memory.samples if used >= 0.98 * LIMIT]
    assert outcome.duration_s is not None
    assert outcome.duration_s - (over[0] if over else outcome.memory.samples[-1][0]) < 10.0
    eventually(lambda: not _children_that_eat(), what="nothing of it is left")


def test_a_trial_close_to_its_limit_is_stopped_and_keeps_its_last_report(bench: Bench) -> None:
    outcome = bench.outcome_of("fills_up_slowly_and_reports", soft_bytes=120 * MIB)
    assert (outcome.ending, outcome.cause) == (Ending.STOPPED, "memory_limit"), outcome
    assert outcome.value is not None and outcome.signal is None, "it ended by itself, at a report"


def test_a_trial_that_fits_completes_and_its_samples_are_kept(bench: Bench) -> None:
    outcome = bench.outcome_of("holds_60_mib")
    assert outcome.ending is Ending.COMPLETED
    assert outcome.memory is not None and 60 * MIB <= outcome.memory.peak_bytes < 120 * MIB, outcome.memory


def test_a_trial_that_swaps_heavily_is_ended_as_swap(tmp_path: Path) -> None:
    if psutil.swap_memory().free < 2048 * MIB:
        pytest.skip("this machine has no 2 GiB of swap left")
    groups = TrialGroups.prepare()
    squeezing = groups.make(300 * MIB) if groups else None
    if squeezing is None:
        pytest.skip("this machine does not let us make cgroups: nothing would swap before all memory is gone")
    for name, unlimited in {"memory.memsw.limit_in_bytes": "-1", "memory.swap.max": "max"}.items():
        knob = Path(squeezing.procs).with_name(name)
        if knob.exists():
            knob.write_text(unlimited)
    attempt = begin(tmp_path, "outgrows_its_memory", cgroup=squeezing.procs)
    assert attempt.trial.pid is not None
    limits = TrialLimits.of(8192 * MIB, 8192 * MIB)
    memory = TrialMemory(attempt.trial.pid, limits, MemoryPoller(), KillRecords(tmp_path))
    outcome = attempt.watch(Diary(), memory=memory, trial_timeout_s=60.0)
    assert squeezing.remove()
    assert (outcome.ending, outcome.cause) == (Ending.STOPPED, "swap"), outcome


def _children_that_eat() -> list[psutil.Process]:
    return [child for child in psutil.process_iter(["cmdline"]) if EATS in str(child.info["cmdline"])]


NODE = 512 * MIB
"""What the worker below may have with all its trials: a quarter is its reserve, each of two slots has 192 MiB."""

NEIGHBOUR = """
import pathlib, sys, time
group, go = map(pathlib.Path, sys.argv[1:])
group.write_text("0")
held = []
while not go.exists():
    if len(held) < 420:
        held.append(b"x" * (1 << 20))
    time.sleep(0.005)
"""


@pytest.fixture(scope="module")
def node_group() -> Iterator[TrialGroup]:
    groups = TrialGroups.prepare()
    group = groups.make(NODE) if groups else None
    if group is None:
        pytest.skip("this machine does not let us make cgroups: no node of 512 MiB can be had")
    yield group
    # The node was killed, and the next agent in this group would remove what its supervisors have left.
    left = TrialGroups(Path(group.procs).parent, version=1 if Path("/sys/fs/cgroup/memory").exists() else 2)
    assert left.sweep() > 0
    assert group.remove()


@pytest.fixture(scope="module")
def cluster(stack: Stack, node_group: TrialGroup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    with empty_database(stack) as database_url:
        folder = tmp_path_factory.mktemp("watched")
        cluster = Cluster(database_url, stack.redis_url, folder, environ={"TEST_GO_FOLDER": str(folder)})
        with opened(database_url, create=True):
            cluster.start_coordinator()
        worker = cluster.start_worker()
        # While it still imports: what it starts then is in the group as well.
        Path(node_group.procs).write_text(str(worker.pid))
        yield cluster
        cluster.stop()
        print(cluster.logs())


@pytest.fixture(scope="module")
def books(cluster: Cluster) -> Iterator[Books]:
    with cluster.books() as books:
        yield books


def _attempts(books: Books, name: str) -> list[AttemptRecord]:
    return books.studies.attempts(books.studies.get(name).id)


def test_a_trial_over_its_limit_is_recorded_and_pruned_for_the_sampler(cluster: Cluster, books: Books) -> None:
    name = cluster.submit_here("allocates_three_times", 1, name="thrice", trial_memory_limit="100 MiB")
    books.wait_until_over(name)
    books.assert_balanced(name, 1)
    (attempt,) = _attempts(books, name)
    assert (attempt.ending, attempt.cause) == (Ending.STOPPED, "oom_kernel")
    assert attempt.memory is not None and attempt.memory.limit_bytes == 100 * MIB == attempt.memory.peak_bytes
    assert attempt.memory.samples
    (trial,) = books.trials(name)
    assert trial.state is TrialState.PRUNED


def test_a_trial_that_was_pushed_out_by_a_neighbour_is_tried_again_alone(
    cluster: Cluster, books: Books, node_group: TrialGroup
) -> None:
    # Given a trial within its share, and a neighbour who eats the rest of the node
    name = cluster.submit_here("holds_60_mib_and_waits", 1, name="squeezed")
    eventually(lambda: _holds(cluster, 50 * MIB), 30, what="the trial holds its memory")
    leave = cluster.folder / "neighbour-leaves"
    arguments = [sys.executable, "-c", NEIGHBOUR, node_group.procs, str(leave)]
    with subprocess.Popen(arguments) as neighbour:
        # When the node is full, and later has room again
        try:
            eventually(lambda: _attempts(books, name)[0].ending, 60, what="the trial is ended")
        finally:
            leave.touch()
        neighbour.wait(120)
    (cluster.folder / name).touch()
    # Then no failure is counted, and the second attempt completes
    books.wait_until_over(name)
    books.assert_balanced(name, 1)
    first, second = _attempts(books, name)
    assert (first.ending, first.cause) == (Ending.KILLED, "oom_neighbour"), first
    assert second.ending is Ending.COMPLETED


def test_what_a_trial_leaks_is_gone_with_it(cluster: Cluster, books: Books) -> None:
    # Eleven times 50 MiB are more than the whole node has.
    name = cluster.submit_here("leaks_50_mib", 11, name="leaky")
    books.wait_until_over(name)
    books.assert_balanced(name, 11)
    assert [trial.value for trial in books.trials(name)] == [1.0] * 11


def _holds(cluster: Cluster, least_bytes: int) -> bool:
    groups = [note["trial_group"] for note in cluster.slots()]
    return any(psutil.Process(group).memory_info().rss >= least_bytes for group in groups if psutil.pid_exists(group))
