"""Memory seen from outside: limits, verdicts, causes of an end, which trial is killed, waiting. Kills no process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.lease import Disposition, dispose
from highnoon.shared.domain.memory_sizes import bytes_of, nearest_size, said
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.memory.cgroup import CgroupMemory
from highnoon.shared.memory.guard import Kind
from highnoon.shared.memory.kernel_files import KernelFiles
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.memory.process_memory import ProcessTree, process_memory
from highnoon.shared.objective.study_file import build_spec
from highnoon.workers.monitor.kill_selection import KillRecord, KillRecords, RunningTrial, select
from highnoon.workers.monitor.memory_policy import (
    KEPT_SAMPLES,
    LOOK_S,
    NodeLimits,
    TraceRecorder,
    TrialLimits,
    explain_end,
    judge,
    pause_s,
)
from highnoon.workers.monitor.trial_cgroups import TrialGroups
from highnoon.workers.monitor.trial_memory import TrialMemory
from tests.frozen import Stopwatch
from tests.unit.kernel_tree import KernelTree

MIB, GIB = 1 << 20, 1 << 30
LIMITS = TrialLimits(hard_bytes=1000 * MIB, soft_bytes=980 * MIB, share_bytes=800 * MIB)
sizes = st.integers(1, 4096 * GIB)

STUDY = {
    "name": "digits",
    "objective": "objectives.py:good",
    "code_dir": str(Path(__file__).parents[1]),
    "search_space": {"x": ["uniform", 0.0, 1.0]},
}


class TestSizes:
    @pytest.mark.parametrize(
        ("written", "size"),
        [
            ("2 GB", 2_000_000_000),
            ("512MB", 512_000_000),
            ("1.5 GiB", 3 * GIB // 2),
            ("300mib", 300 * MIB),
            ("2g", 2_000_000_000),
            ("4096", 4096),
            (4096, 4096),
        ],
    )
    def test_what_people_write(self, written: object, size: int) -> None:
        assert bytes_of(written) == size

    @pytest.mark.parametrize("written", ["2 gigs", "2,5 GB", "", "GB", "-2 GB", 2.5, True, None, [1]])
    def test_what_is_no_size(self, written: object) -> None:
        assert bytes_of(written) is None

    @given(sizes)
    def test_a_size_is_printed_briefly(self, size: int) -> None:
        assert said(size).endswith("iB")

    @pytest.mark.parametrize(
        ("written", "meant"),
        [("2 gigs", "2 GB"), ("2,5 GB", "2.5 GB"), (2, "2 GB"), ("16", "16 GB"), ("much", "2 GB"), (1.5, "1.5 GB")],
    )
    def test_the_error_names_what_was_meant(self, written: object, meant: str) -> None:
        assert nearest_size(written, least_bytes=16 * MIB) == meant
        with pytest.raises(InvalidInput) as raised:
            build_spec({**STUDY, "trial_memory_limit": written}, source="study.toml")
        (problem,) = raised.value.problems
        assert problem.key == "trial_memory_limit" and problem.value == written
        assert problem.hint == f'Write for example "{meant}".'

    def test_a_study_keeps_bytes_and_passes_them_to_its_guards(self) -> None:
        spec = build_spec({**STUDY, "trial_memory_limit": "1.5 GiB"}, source="study.toml")
        assert spec.to_json()["trial_memory_limit"] == 3 * GIB // 2 == spec.memory.trial_memory_limit
        assert build_spec(STUDY, source="study.toml").trial_memory_limit is None


class TestNodeLimits:
    @given(node=st.integers(256 * MIB, 4096 * GIB), slots=st.integers(1, 128))
    def test_all_shares_and_the_reserve_fit_into_the_node(self, node: int, slots: int) -> None:
        limits = NodeLimits(node_bytes=node, slots=slots)
        assert slots * limits.share_bytes + limits.reserve_bytes <= node
        assert node - limits.reserve_bytes < limits.full_bytes < node
        assert limits.reserve_bytes <= node // 4

    @given(node=st.integers(256 * MIB, 4096 * GIB), asked=sizes)
    def test_the_least_limit_counts(self, node: int, asked: int) -> None:
        limits = NodeLimits(node_bytes=node, slots=2)
        limit = limits.limit_bytes(asked)
        assert limit <= asked and limit < node
        assert limits.limit_bytes(None) == limits.share_bytes

    @given(hard=st.integers(16 * MIB, 4096 * GIB), fraction=st.none() | st.floats(0.01, 1.0))
    def test_the_soft_limit_lies_between_the_guards_ceiling_and_the_hard_one(
        self, hard: int, fraction: float | None
    ) -> None:
        limits = TrialLimits.of(hard, hard, fraction)
        assert 0 < limits.soft_bytes < limits.hard_bytes


class TestJudgement:
    @pytest.mark.parametrize(
        ("used", "seen", "kind", "cause"),
        [
            (900, {}, Kind.OK, ""),
            (990, {}, Kind.STOP, "memory_limit"),
            (1001, {}, Kind.KILL, "memory_limit"),
            (10, {"oom_kills": 1, "peak_bytes": 985 * MIB}, Kind.KILL, "oom_kernel"),
            (10, {"oom_kills": 1, "peak_bytes": 900 * MIB}, Kind.KILL, "oom_kernel"),
            (10, {"oom_kills": 1, "peak_bytes": 700 * MIB}, Kind.KILL, "oom_neighbour"),
            (10, {"swap_spike_bytes": 600 * MIB}, Kind.KILL, "swap"),
        ],
    )
    def test_the_verdict_on_a_reading(self, used: int, seen: dict[str, int], kind: Kind, cause: str) -> None:
        verdict = judge(used * MIB, LIMITS, **seen)
        assert (verdict.kind, verdict.cause) == (kind, cause)
        assert verdict.message.partition(":")[0] == cause

    @given(used=sizes, more=sizes)
    def test_more_memory_is_never_judged_more_mildly(self, used: int, more: int) -> None:
        assert judge(used, LIMITS).kind <= judge(used + more, LIMITS).kind

    @given(headroom=st.integers(-GIB, 4096 * GIB), growth=st.floats(-1e12, 1e12))
    def test_the_next_reading_comes_before_the_rest_could_be_filled(self, headroom: int, growth: float) -> None:
        pause = pause_s(headroom, growth)
        assert 0.05 <= pause <= LOOK_S
        assert pause == 0.05 or growth * pause <= headroom / 2

    def test_samples_are_the_last_twenty_half_seconds_and_the_newest(self) -> None:
        recorder = TraceRecorder()
        for number in range(1000):
            recorder.add(number * 0.05, number if number != 500 else 5000)
        trace = recorder.trace(1000)
        assert len(trace.samples) == KEPT_SAMPLES and trace.samples[-1] == (49.95, 999)
        assert trace.peak_bytes == 5000, "a peak between two samples that were kept"
        assert trace.samples[0][0] < 42.0


class TestExplainEnd:
    def explain(self, **known: Any) -> Outcome | None:
        return explain_end(**{"signum": signal.SIGKILL, "peak_bytes": 500 * MIB, "limits": LIMITS, **known})

    def test_a_kill_without_explanation_is_not_attributed_to_memory(self) -> None:
        assert self.explain() is None
        assert self.explain(signum=signal.SIGSEGV, node_kills=1) is None

    def test_the_counter_of_the_trials_group_outweighs_its_exit_status(self) -> None:
        outcome = self.explain(signum=None, group_kills=1, peak_bytes=LIMITS.hard_bytes)
        assert outcome is not None and (outcome.ending, outcome.cause) == (Ending.STOPPED, "oom_kernel")
        assert outcome.constraint is not None and outcome.constraint > 0

    def test_after_a_kernel_kill_on_the_node_the_share_decides_the_cause(self) -> None:
        mine = self.explain(node_kills=1, peak_bytes=900 * MIB)
        assert mine is not None and (mine.ending, mine.cause) == (Ending.STOPPED, "oom_kernel")
        theirs = self.explain(node_kills=1, peak_bytes=700 * MIB)
        assert theirs is not None and (theirs.ending, theirs.cause) == (Ending.KILLED, "oom_neighbour")

    def test_the_agents_record_gives_the_cause(self) -> None:
        own = self.explain(record=KillRecord(cause="memory_limit", message="memory_limit: ..."))
        assert own is not None and (own.ending, own.cause) == (Ending.STOPPED, "memory_limit")
        other = self.explain(record=KillRecord(cause="oom_neighbour", message="oom_neighbour: ..."))
        assert other is not None and (other.ending, other.cause) == (Ending.KILLED, "oom_neighbour")

    def test_after_a_neighbours_doing_it_is_tried_again_once_and_alone(self) -> None:
        limits = {"attempt": 1, "errors": 0, "max_attempts": 3, "retry_errors": 0}
        first = self.explain(node_kills=1)
        assert first is not None and dispose(first, infrastructure_failures=0, **limits)[0] is Disposition.RETRY
        second = self.explain(node_kills=1, was_alone=True)
        assert second is not None and (second.ending, second.cause) == (Ending.STOPPED, "oom_neighbour")
        assert dispose(second, infrastructure_failures=1, **limits)[0] is Disposition.CLOSE


def trial(group: int, *, age: int, used: int) -> RunningTrial:
    return RunningTrial(group=group, started_ticks=10_000 - age, used_bytes=used * MIB)


class TestKillSelection:
    def choose(self, *trials: RunningTrial) -> int | None:
        chosen = select(trials, share_bytes=800 * MIB, least_bytes=50 * MIB)
        return chosen and chosen.group

    def test_a_trial_over_its_share_is_killed_first(self) -> None:
        assert self.choose(trial(1, age=900, used=850), trial(2, age=1, used=799)) == 1

    def test_the_newest_of_the_large_trials_is_killed(self) -> None:
        assert self.choose(trial(1, age=900, used=700), trial(2, age=5, used=400), trial(3, age=1, used=60)) == 2

    def test_no_trial_is_killed_when_that_would_not_help(self) -> None:
        assert self.choose(trial(1, age=9, used=20)) is None
        assert self.choose() is None

    @given(
        st.lists(st.builds(RunningTrial, group=st.integers(2, 99), started_ticks=sizes, used_bytes=sizes), min_size=1)
    )
    def test_the_victim_frees_at_least_half_of_the_most_that_a_kill_could(self, trials: list[RunningTrial]) -> None:
        chosen = select(trials, share_bytes=max(trial.used_bytes for trial in trials), least_bytes=0)
        assert chosen is not None
        assert 2 * chosen.used_bytes >= max(trial.used_bytes for trial in trials)

    def test_the_record_names_the_cause_and_is_read_once_written(self, tmp_path: Path) -> None:
        records = KillRecords(tmp_path)
        assert records.read(7) is None
        records.write(7, KillRecord.of(trial(7, age=1, used=900), share_bytes=800 * MIB))
        found = records.read(7)
        assert found is not None and found.cause == "memory_limit" and "900 MiB" in found.message
        records.drop(7)
        assert records.read(7) is None
        assert KillRecord.of(trial(7, age=1, used=700), share_bytes=800 * MIB).cause == "oom_neighbour"


class TestWhereGroupsAreMade:
    def test_without_hierarchy_no_group_is_made_below_a_limit_that_would_not_hold(self, tmp_path: Path) -> None:
        self.machine(tmp_path, 1).write("/sys/fs/cgroup/memory/node/memory.use_hierarchy", "0\n")
        assert TrialGroups.find(tmp_path) is None
        self.machine(tmp_path, 1).write("/sys/fs/cgroup/memory/node/memory.use_hierarchy", "1\n")
        assert TrialGroups.find(tmp_path) is not None

    def test_version_2_needs_the_agent_to_have_moved_aside(self, tmp_path: Path) -> None:
        tree = self.machine(tmp_path, 2)
        assert TrialGroups.find(tmp_path) is None
        tree.write("/sys/fs/cgroup/node/cgroup.subtree_control", "")
        tree.write("/sys/fs/cgroup/node/highnoon-node/cgroup.procs", "")
        TrialGroups.prepare(tmp_path)
        assert (tmp_path / "sys/fs/cgroup/node/cgroup.subtree_control").read_text() == "+memory"

    def test_a_mount_that_may_not_be_written_gives_none(self, tmp_path: Path) -> None:
        self.machine(tmp_path, 2)
        assert TrialGroups.prepare(tmp_path) is None, "the group has no file to move into"

    def test_groups_that_cannot_be_removed_delay_no_more_than_one(self, tmp_path: Path) -> None:
        """Processes of them hang in the kernel, and the agent that sweeps watches the memory of the node."""
        for number in range(20):
            (tmp_path / f"highnoon-{2**22 + 1}-1-{number}" / "held").mkdir(parents=True)
        with Stopwatch() as watch:
            assert TrialGroups(tmp_path, version=2).sweep() == 0
        assert watch.seconds < 5.0, "a second for each would be 20"

    def machine(self, root: Path, version: int) -> KernelTree:
        return KernelTree(root).with_cgroup(os.getpid(), version, "/node", limit=None, usage=GIB)


def test_the_node_is_as_full_as_the_limit_with_the_least_left(tmp_path: Path) -> None:
    tree = KernelTree(tmp_path).with_host(16 * GIB, available=1 * GIB)
    tree.with_cgroup(os.getpid(), 2, "/node", limit=8 * GIB, usage=4 * GIB, oom_kills=3)
    node = MemoryPoller(root=tmp_path)
    seen = node.node().tightest
    assert seen is not None and (seen.limit_bytes, seen.used_bytes) == (16 * GIB, 15 * GIB)
    assert (node.limit_bytes(), node.oom_kills()) == (8 * GIB, 3)
    assert MemoryPoller(root=tmp_path / "nothing").node().tightest is None


def test_an_outcome_with_its_memory_survives_the_ledger() -> None:
    recorder = TraceRecorder()
    recorder.add(0.5, 7)
    outcome = Outcome(ending=Ending.STOPPED, constraint=0.5, memory=recorder.trace(5))
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_a_trials_processes_are_found_and_what_they_share_with_others_is_told_apart(tmp_path: Path) -> None:
    machine = KernelTree(tmp_path).with_process(10, pss=100 * MIB, rss=300 * MIB)
    machine.with_process(11, pss=20 * MIB, parent=10).with_process(12, pss=5 * MIB, parent=11, swap=7 * MIB)
    machine.with_process(13, pss=900 * MIB)
    tree = ProcessTree(10, KernelFiles(tmp_path))
    tree.follow()
    assert sorted(tree.pids) == [10, 11, 12], "this kernel keeps no list of children: all of /proc is read"
    assert tree.estimate().resident_bytes == 325 * MIB
    memory = tree.exact()
    assert memory is not None and (memory.private_bytes, memory.swap_bytes) == (125 * MIB, 7 * MIB)

    machine.write(f"/proc/self/task/{os.getpid()}/children", "")
    machine.write("/proc/12/task/12/children", "14 ")
    machine.with_process(14, pss=MIB, parent=12)
    tree.follow()
    assert sorted(tree.pids) == [10, 11, 12, 14]
    assert ProcessTree(99, KernelFiles(tmp_path)).exact() is None


class Group:
    """A cgroup of a trial, as its files would show it."""

    def __init__(self, used: int = 0, swap: int = 0, oom_kills: int = 0, *, joined: bool = True) -> None:
        self.used, self.swap, self.oom_kills, self.joined = used, swap, oom_kills, joined
        self.has_run_out = True

    def memory(self) -> CgroupMemory:
        return CgroupMemory(
            path="/trial",
            limit_bytes=LIMITS.hard_bytes,
            used_bytes=self.used,
            swap_bytes=self.swap,
            peak_bytes=LIMITS.hard_bytes,
            oom_kills=self.oom_kills,
            has_run_out=self.has_run_out,
        )

    def holds(self, pid: int) -> bool:
        return self.joined


@contextmanager
def family(*, holding: int, children: int) -> Iterator[int]:
    """A process that was forked from this one, has filled its memory, and has then forked processes that share it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        held = os.urandom(1) * holding
        for _ in range(children):
            if os.fork() == 0:
                signal.pause()
        os.write(writing, held[:1])
        signal.pause()
    try:
        os.read(reading, 1)
        yield pid
    finally:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


class TestSampling:
    @pytest.fixture(autouse=True)
    def _machine(self, tmp_path: Path) -> None:
        self.now = 0.0
        self.root = tmp_path
        self.swap_in_use(0)

    def swap_in_use(self, size: int) -> None:
        KernelTree(self.root).with_host(16 * GIB, available=8 * GIB, swap=16 * GIB, swap_free=16 * GIB - size)

    def memory(self, group: Group) -> TrialMemory:
        node = MemoryPoller(root=self.root)
        records = KillRecords(self.root)
        return TrialMemory(os.getpid(), LIMITS, node, records, group=group, clock=lambda: self.now)  # type: ignore[arg-type]

    def test_it_reads_more_often_the_less_is_left(self) -> None:
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        assert memory.held_bytes is None, "nothing was read yet"
        self.now = 0.5
        assert memory.look().kind is Kind.OK
        assert memory.held_bytes == 100 * MIB
        far = memory.due_in_s()
        group.used = 950 * MIB
        self.now = 1.0
        assert memory.look().kind is Kind.OK
        assert 0.05 <= memory.due_in_s() < far
        assert memory.trace().samples == ((0.5, 100 * MIB), (1.0, 950 * MIB))

    def test_swap_that_grows_with_the_trial_ends_it(self) -> None:
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        for second in range(1, 4):
            self.now = float(second)
            assert memory.look().kind is Kind.OK
        group.swap = 300 * MIB
        self.swap_in_use(600 * MIB)
        self.now = 4.0
        verdict = memory.look()
        assert (verdict.kind, verdict.cause) == (Kind.KILL, "swap")

    def test_swap_that_others_use_ends_no_trial(self) -> None:
        memory = self.memory(Group(used=100 * MIB))
        self.now = 1.0
        memory.look()
        self.swap_in_use(8 * GIB)
        self.now = 2.0
        assert memory.look().kind is Kind.OK

    def test_a_group_that_the_trial_has_not_joined_is_ignored(self) -> None:
        memory = self.memory(Group(used=2000 * MIB, oom_kills=1, joined=False))
        self.now = 0.5
        verdict = memory.look()
        assert verdict.cause != "oom_kernel" and memory.peak_bytes != 2000 * MIB

    def test_a_child_that_the_kernel_killed_is_the_trials_own_doing(self) -> None:
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        group.oom_kills = 1  # before the first reading
        found = memory.explain(None, None)
        assert found is not None and (found.ending, found.cause) == (Ending.STOPPED, "oom_kernel")
        assert memory.trace().peak_bytes == LIMITS.hard_bytes

    @pytest.mark.parametrize("is_over", [False, True])
    def test_trial_of_which_a_process_was_killed_for_a_limit_above_its_own_is_tried_again(self, is_over: bool) -> None:
        """Its group's peak is page cache, of which that limit left nothing."""
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        self.now = 0.5
        memory.look()
        group.oom_kills, group.has_run_out, self.now = 1, False, 1.0
        found = memory.explain(None, None) if is_over else memory.ended_by(memory.look())
        assert found is not None and (found.ending, found.cause) == (Ending.KILLED, "oom_neighbour")
        assert memory.trace().peak_bytes == 100 * MIB

    def test_trial_that_dies_before_its_first_reading_has_the_kernels_peak_as_sample(self) -> None:
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        group.oom_kills, self.now = 1, 0.04
        memory.explain(signal.SIGKILL, None)
        assert memory.trace().samples == ((0.04, LIMITS.hard_bytes),)

    def test_what_a_trial_shares_with_its_own_children_from_the_beginning_is_its_own(self) -> None:
        with family(holding=200 * MIB, children=3) as pid:
            node, records = MemoryPoller(root=self.root), KillRecords(self.root)
            memory = TrialMemory(pid, LIMITS, node, records, clock=lambda: self.now)
            self.now = 1.5
            memory.look()
            parent = process_memory(os.getpid())
        assert parent is not None
        # What four processes may have inherited of this one cannot be distinguished; it is little where it runs alone.
        inherited = 4 * (parent.pss_bytes - parent.private_bytes)
        assert 180 * MIB - inherited < memory.peak_bytes < 300 * MIB

    def test_the_kernels_peak_is_no_sample_where_there_are_readings(self) -> None:
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        self.now = 0.5
        memory.look()
        group.oom_kills, self.now = 1, 9.0
        memory.explain(None, None)
        assert memory.trace().samples == ((0.5, 100 * MIB),)
