"""The watchdog's policies: limits, looks, causes of death, who must go, who waits for whom. No process is harmed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.shared.domain.byte_sizes import bytes_of, nearest_size, said
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.lease import Disposition, RetryPolicy, Wish, dispose
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.memory.cgroup import CgroupMemory
from highnoon.shared.memory.kernel_files import KernelFiles
from highnoon.shared.memory.process_group import ProcessGroup
from highnoon.shared.objective.study_loader import build_spec
from highnoon.workers.monitor.kill_selection import Candidate, KillNote, KillNotes, note_of, victim
from highnoon.workers.monitor.memory_limits import Allowance, TrialLimits
from highnoon.workers.monitor.memory_policy import KEPT_SAMPLES, LOOK_S, Action, Autopsy, Look, Samples, judge, pause_s
from highnoon.workers.monitor.node_memory import NodeMemory
from highnoon.workers.monitor.resources import _Waiting
from highnoon.workers.monitor.trial_cgroups import TrialGroups
from highnoon.workers.monitor.trial_memory import TrialMemory
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
    def test_a_size_is_said_briefly(self, size: int) -> None:
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

    def test_a_study_keeps_bytes_and_its_guards_are_told(self) -> None:
        spec = build_spec({**STUDY, "trial_memory_limit": "1.5 GiB"}, source="study.toml")
        assert spec.to_json()["trial_memory_limit"] == 3 * GIB // 2 == spec.memory.trial_memory_limit
        assert build_spec(STUDY, source="study.toml").trial_memory_limit is None


class TestAllowance:
    @given(node=st.integers(256 * MIB, 4096 * GIB), slots=st.integers(1, 128))
    def test_all_shares_and_the_reserve_fit_into_the_node(self, node: int, slots: int) -> None:
        allowance = Allowance(node_bytes=node, slots=slots)
        assert slots * allowance.share_bytes + allowance.reserve_bytes <= node
        assert node - allowance.reserve_bytes < allowance.full_bytes < node
        assert allowance.reserve_bytes <= node // 4

    @given(node=st.integers(256 * MIB, 4096 * GIB), asked=sizes)
    def test_the_least_limit_counts(self, node: int, asked: int) -> None:
        allowance = Allowance(node_bytes=node, slots=2)
        limit = allowance.limit_bytes(asked)
        assert limit <= asked and limit < node
        assert allowance.limit_bytes(None) == allowance.share_bytes

    @given(hard=st.integers(16 * MIB, 4096 * GIB), fraction=st.none() | st.floats(0.01, 1.0))
    def test_the_soft_limit_lies_between_the_guards_ceiling_and_the_hard_one(
        self, hard: int, fraction: float | None
    ) -> None:
        limits = TrialLimits.of(hard, hard, fraction)
        assert 0 < limits.soft_bytes < limits.hard_bytes


class TestJudgement:
    @pytest.mark.parametrize(
        ("look", "action", "cause"),
        [
            (Look(at_s=1.0, used_bytes=900 * MIB), Action.GO_ON, ""),
            (Look(at_s=1.0, used_bytes=990 * MIB), Action.ASK, "memory_limit"),
            (Look(at_s=1.0, used_bytes=1001 * MIB), Action.KILL, "memory_limit"),
            (Look(at_s=1.0, used_bytes=10 * MIB, oom_kills=1), Action.KILL, "oom_kernel"),
            (Look(at_s=1.0, used_bytes=10 * MIB, swap_spike_bytes=600 * MIB), Action.KILL, "swap"),
        ],
    )
    def test_what_a_look_asks_for(self, look: Look, action: Action, cause: str) -> None:
        verdict = judge(look, LIMITS)
        assert (verdict.action, verdict.cause) == (action, cause)
        assert verdict.message.partition(":")[0] == cause

    @given(used=sizes, more=sizes)
    def test_more_memory_is_never_judged_more_mildly(self, used: int, more: int) -> None:
        order = [Action.GO_ON, Action.ASK, Action.KILL]
        before = judge(Look(at_s=0.0, used_bytes=used), LIMITS).action
        after = judge(Look(at_s=0.0, used_bytes=used + more), LIMITS).action
        assert order.index(before) <= order.index(after)

    @given(headroom=st.integers(-GIB, 4096 * GIB), growth=st.floats(-1e12, 1e12))
    def test_the_next_look_comes_before_the_rest_could_be_filled(self, headroom: int, growth: float) -> None:
        pause = pause_s(headroom, growth)
        assert 0.05 <= pause <= LOOK_S
        assert pause == 0.05 or growth * pause <= headroom / 2

    def test_samples_are_the_last_twenty_half_seconds_and_the_newest(self) -> None:
        samples = Samples()
        for number in range(1000):
            samples.add(Look(at_s=number * 0.05, used_bytes=number if number != 500 else 5000))
        trace = samples.trace(1000)
        assert len(trace.samples) == KEPT_SAMPLES and trace.samples[-1] == (49.95, 999)
        assert trace.peak_bytes == 5000, "a peak between two samples that were kept"
        assert trace.samples[0][0] < 42.0


class TestAutopsy:
    def autopsy(self, **known: object) -> Autopsy:
        facts = {"signum": signal.SIGKILL, "peak_bytes": 500 * MIB, "limits": LIMITS}
        return Autopsy(**{**facts, **known})  # type: ignore[arg-type]

    def test_a_kill_that_nobody_explains_is_no_memory_death(self) -> None:
        assert self.autopsy().outcome() is None
        assert self.autopsy(signum=signal.SIGSEGV, node_kills=1).outcome() is None

    def test_the_groups_own_counter_proves_it_whatever_the_trial_says(self) -> None:
        outcome = self.autopsy(signum=None, group_kills=1, peak_bytes=LIMITS.hard_bytes).outcome()
        assert outcome is not None and (outcome.ending, outcome.cause) == (Ending.STOPPED, "oom_kernel")
        assert outcome.constraint is not None and outcome.constraint > 0

    def test_a_kernel_that_ran_out_elsewhere_blames_who_was_over_its_share(self) -> None:
        mine = self.autopsy(node_kills=1, peak_bytes=900 * MIB).outcome()
        assert mine is not None and (mine.ending, mine.cause) == (Ending.STOPPED, "oom_kernel")
        theirs = self.autopsy(node_kills=1, peak_bytes=700 * MIB).outcome()
        assert theirs is not None and (theirs.ending, theirs.cause) == (Ending.KILLED, "oom_neighbour")

    def test_the_agents_note_says_whose_doing_it_was(self) -> None:
        own = self.autopsy(note=KillNote(cause="memory_limit", message="memory_limit: ...")).outcome()
        assert own is not None and (own.ending, own.cause) == (Ending.STOPPED, "memory_limit")
        other = self.autopsy(note=KillNote(cause="oom_neighbour", message="oom_neighbour: ...")).outcome()
        assert other is not None and (other.ending, other.cause) == (Ending.KILLED, "oom_neighbour")

    def test_a_neighbours_doing_is_tried_again_once_and_alone(self) -> None:
        policy = RetryPolicy(max_attempts=3)
        first = self.autopsy(node_kills=1).outcome()
        assert (
            first is not None
            and dispose(first, infrastructure_failures=0, errors=0, policy=policy) is Disposition.RETRY
        )
        second = self.autopsy(node_kills=1, was_alone=True).outcome()
        assert second is not None and (second.ending, second.cause) == (Ending.STOPPED, "oom_neighbour")
        assert dispose(second, infrastructure_failures=1, errors=0, policy=policy) is Disposition.CLOSE


def trial(group: int, *, age: int, used: int) -> Candidate:
    return Candidate(group=group, started_ticks=10_000 - age, used_bytes=used * MIB)


class TestKillOrder:
    def choose(self, *candidates: Candidate) -> int | None:
        chosen = victim(candidates, share_bytes=800 * MIB, least_bytes=50 * MIB)
        return chosen and chosen.group

    def test_who_is_over_its_share_goes_first(self) -> None:
        assert self.choose(trial(1, age=900, used=850), trial(2, age=1, used=799)) == 1

    def test_the_newest_of_the_hungry_goes(self) -> None:
        assert self.choose(trial(1, age=900, used=700), trial(2, age=5, used=400), trial(3, age=1, used=60)) == 2

    def test_nobody_goes_for_nothing(self) -> None:
        assert self.choose(trial(1, age=9, used=20)) is None
        assert self.choose() is None

    @given(st.lists(st.builds(Candidate, group=st.integers(2, 99), started_ticks=sizes, used_bytes=sizes), min_size=1))
    def test_the_victim_frees_at_least_half_of_the_most_that_a_kill_could(self, candidates: list[Candidate]) -> None:
        chosen = victim(candidates, share_bytes=max(c.used_bytes for c in candidates), least_bytes=0)
        assert chosen is not None
        assert 2 * chosen.used_bytes >= max(candidate.used_bytes for candidate in candidates)

    def test_the_note_names_the_cause_and_is_read_once_written(self, tmp_path: Path) -> None:
        notes = KillNotes(tmp_path / "kills")
        assert notes.read(7) is None
        notes.write(7, note_of(trial(7, age=1, used=900), share_bytes=800 * MIB))
        found = notes.read(7)
        assert found is not None and found.cause == "memory_limit" and "900 MiB" in found.message
        notes.drop(7)
        assert notes.read(7) is None
        assert note_of(trial(7, age=1, used=700), share_bytes=800 * MIB).cause == "oom_neighbour"


class TestWaiting:
    def waiting(self, wish: Wish | None = Wish.CARRY_ON, *, drains: bool = False) -> tuple[_Waiting, list[float]]:
        renewed: list[float] = []
        clock = iter(float(second) for second in range(100))

        def renew() -> Wish | None:
            renewed.append(1.0)
            return wish

        duties = SimpleNamespace(renew=renew, must_hand_back=lambda: drains)
        return _Waiting(duties, 8.0, clock=lambda: next(clock)), renewed  # type: ignore[arg-type]

    def test_it_renews_its_lease_in_time_and_waits_on_through_an_outage(self) -> None:
        waiting, renewed = self.waiting(None)
        assert all(waiting() for _ in range(20))
        assert len(renewed) == 2 and waiting.outcome is None

    def test_it_ends_when_a_person_cancels_or_the_node_drains(self) -> None:
        cancelled, _ = self.waiting(Wish.CANCEL)
        while cancelled():
            pass
        assert cancelled.outcome is not None and cancelled.outcome.ending is Ending.CANCELLED
        drained, renewed = self.waiting(drains=True)
        assert not drained() and not renewed
        assert drained.outcome is not None and drained.outcome.ending is Ending.RELEASED


class TestPlacesOfGroups:
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

    def machine(self, root: Path, version: int) -> KernelTree:
        return KernelTree(root).with_cgroup(os.getpid(), version, "/node", limit=None, usage=GIB)


def test_the_node_is_as_full_as_the_limit_with_the_least_left(tmp_path: Path) -> None:
    tree = KernelTree(tmp_path).with_host(16 * GIB, available=1 * GIB)
    tree.with_cgroup(os.getpid(), 2, "/node", limit=8 * GIB, usage=4 * GIB, oom_kills=3)
    node = NodeMemory(KernelFiles(tmp_path))
    seen = node.read()
    assert seen is not None and (seen.limit_bytes, seen.used_bytes) == (16 * GIB, 15 * GIB)
    assert (node.limit_bytes(), node.oom_kills()) == (8 * GIB, 3)
    assert NodeMemory(KernelFiles(tmp_path / "nothing")).read() is None


def test_an_outcome_with_its_memory_survives_the_ledger() -> None:
    samples = Samples()
    samples.add(Look(at_s=0.5, used_bytes=7))
    outcome = Outcome(ending=Ending.STOPPED, constraint=0.5, memory=samples.trace(5))
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_a_trials_processes_are_found_and_what_they_share_with_others_is_told_apart(tmp_path: Path) -> None:
    tree = KernelTree(tmp_path).with_process(10, pss=100 * MIB, rss=300 * MIB)
    tree.with_process(11, pss=20 * MIB, parent=10).with_process(12, pss=5 * MIB, parent=11, swap=7 * MIB)
    tree.with_process(13, pss=900 * MIB)
    group = ProcessGroup(10, KernelFiles(tmp_path))
    group.follow()
    assert sorted(group.pids) == [10, 11, 12], "this kernel keeps no list of children: all of /proc is read"
    assert group.resident_bytes() == 325 * MIB
    memory = group.exact()
    assert memory is not None and (memory.private_bytes, memory.swap_bytes) == (125 * MIB, 7 * MIB)

    tree.write(f"/proc/self/task/{os.getpid()}/children", "")
    tree.write("/proc/12/task/12/children", "14 ")
    tree.with_process(14, pss=MIB, parent=12)
    group.follow()
    assert sorted(group.pids) == [10, 11, 12, 14]
    assert ProcessGroup(99, KernelFiles(tmp_path)).exact() is None


class Group:
    """A cgroup of a trial, as its files would say."""

    def __init__(self, used: int = 0, swap: int = 0, oom_kills: int = 0, *, joined: bool = True) -> None:
        self.used, self.swap, self.oom_kills, self.joined = used, swap, oom_kills, joined

    def memory(self) -> CgroupMemory:
        return CgroupMemory(
            path="/trial",
            limit_bytes=LIMITS.hard_bytes,
            used_bytes=self.used,
            swap_bytes=self.swap,
            peak_bytes=LIMITS.hard_bytes,
            oom_kills=self.oom_kills,
        )

    def holds(self, pid: int) -> bool:
        return self.joined


class TestSampling:
    @pytest.fixture(autouse=True)
    def _machine(self, tmp_path: Path) -> None:
        self.now = 0.0
        self.root = tmp_path
        self.swap_in_use(0)

    def swap_in_use(self, size: int) -> None:
        KernelTree(self.root).with_host(16 * GIB, available=8 * GIB, swap=16 * GIB, swap_free=16 * GIB - size)

    def memory(self, group: Group) -> TrialMemory:
        node = NodeMemory(KernelFiles(self.root))
        notes = KillNotes(self.root / "kills")
        return TrialMemory(os.getpid(), LIMITS, node, notes, group=group, clock=lambda: self.now)

    def test_it_looks_more_often_the_less_is_left(self) -> None:
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        self.now = 0.5
        assert memory.look().action is Action.GO_ON
        far = memory.due_in_s()
        group.used = 950 * MIB
        self.now = 1.0
        assert memory.look().action is Action.GO_ON
        assert 0.05 <= memory.due_in_s() < far
        assert memory.trace().samples == ((0.5, 100 * MIB), (1.0, 950 * MIB))

    def test_swap_that_grows_with_the_trial_ends_it(self) -> None:
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        for second in range(1, 4):
            self.now = float(second)
            assert memory.look().action is Action.GO_ON
        group.swap = 300 * MIB
        self.swap_in_use(600 * MIB)
        self.now = 4.0
        verdict = memory.look()
        assert (verdict.action, verdict.cause) == (Action.KILL, "swap")

    def test_swap_that_others_use_ends_nobody(self) -> None:
        memory = self.memory(Group(used=100 * MIB))
        self.now = 1.0
        memory.look()
        self.swap_in_use(8 * GIB)
        self.now = 2.0
        assert memory.look().action is Action.GO_ON

    def test_a_group_that_the_trial_has_not_joined_is_not_believed(self) -> None:
        memory = self.memory(Group(used=2000 * MIB, oom_kills=1, joined=False))
        self.now = 0.5
        verdict = memory.look()
        assert verdict.cause != "oom_kernel" and memory.peak_bytes != 2000 * MIB

    def test_a_child_that_the_kernel_killed_is_the_trials_own_doing(self) -> None:
        group = Group(used=100 * MIB)
        memory = self.memory(group)
        group.oom_kills = 1  # before anybody has looked
        found = memory.explain(None, None)
        assert found is not None and (found.ending, found.cause) == (Ending.STOPPED, "oom_kernel")
        assert memory.trace().peak_bytes == LIMITS.hard_bytes
