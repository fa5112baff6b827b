"""Reading the kernel: on machines made of files, and on the one that runs the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from highnoon.shared.memory.cgroup import CgroupMemory, Cgroups
from highnoon.shared.memory.gpu import GpuDevice, Gpus
from highnoon.shared.memory.kernel_files import KernelFiles, host_memory
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.memory.process_memory import ProcessTree, TreeMemory, process_memory
from tests.unit.kernel_tree import MOUNT, FakeNvml, KernelTree

MIB, GIB = 1 << 20, 1 << 30
VERSIONS = pytest.mark.parametrize("version", [1, 2])


@pytest.fixture
def kernel(tmp_path: Path) -> KernelTree:
    return KernelTree(tmp_path).with_host(16 * GIB, available=12 * GIB).with_process(7, pss=1 * GIB)


def groups_of(kernel: KernelTree) -> tuple[CgroupMemory, ...]:
    return Cgroups(7, KernelFiles(kernel.root)).read()


def tree_of(kernel: KernelTree, pid: int = 7) -> TreeMemory | None:
    tree = ProcessTree(pid, KernelFiles(kernel.root))
    tree.find()
    return tree.exact()


class TestHost:
    def test_memory_and_swap(self, kernel: KernelTree) -> None:
        kernel.with_host(16 * GIB, available=12 * GIB, swap=4 * GIB, swap_free=3 * GIB)

        host = host_memory(KernelFiles(kernel.root))

        assert host is not None
        assert (host.total_bytes, host.used_bytes) == (16 * GIB, 4 * GIB)
        assert (host.swap_total_bytes, host.swap_used_bytes) == (4 * GIB, 1 * GIB)

    def test_stalls_of_the_own_group_before_those_of_the_machine(self, kernel: KernelTree) -> None:
        kernel.with_stalls("/proc/pressure/memory", 12.5)
        of_machine = kernel.poller(7).read().stalled_share
        kernel.with_cgroup(7, 2, "/box", limit=GIB, usage=1).with_stalls(f"{MOUNT}/box/memory.pressure", 50.0)

        assert (of_machine, kernel.poller(7).read().stalled_share) == (0.125, 0.5)


class TestCgroups:
    @VERSIONS
    def test_the_page_cache_that_can_be_dropped_is_not_used_memory(self, kernel: KernelTree, version: int) -> None:
        kernel.with_cgroup(7, version, "/box", limit=4 * GIB, usage=3 * GIB, droppable=1 * GIB, swap=5, oom_kills=2)

        [group] = groups_of(kernel)

        assert (group.limit_bytes, group.used_bytes, group.swap_bytes) == (4 * GIB, 2 * GIB, 5)
        assert (group.peak_bytes, group.oom_kills) == (3 * GIB + 1, 2)
        assert kernel.poller(7).limit_bytes() == 4 * GIB

    @VERSIONS
    @pytest.mark.parametrize(
        ("active", "unwritten", "used"), [(1 * GIB, 0, 1), (1 * GIB, 512 * MIB, 1.5), (0, 2 * GIB, 3)]
    )
    def test_files_that_were_read_twice_are_not_used_memory_until_they_must_be_written(
        self, kernel: KernelTree, version: int, active: int, unwritten: int, used: float
    ) -> None:
        kernel.with_cgroup(7, version, "/box", limit=4 * GIB, usage=1 * GIB)
        poller = kernel.poller(7)
        poller.read()
        sizes = {"usage": 3 * GIB, "droppable": 1 * GIB, "active": active, "unwritten": unwritten}
        kernel.with_cgroup(7, version, "/box", limit=4 * GIB, **sizes)

        assert [scope.used_bytes for scope in poller.read().scopes] == [4 * GIB, used * GIB], "a cheap reading"
        assert [group.used_bytes for group in groups_of(kernel)] == [used * GIB]

    def test_names_of_files_that_the_kernel_can_forget_are_not_used_memory(self, kernel: KernelTree) -> None:
        kernel.with_cgroup(7, 2, "/box", limit=4 * GIB, usage=1 * GIB)
        poller = kernel.poller(7)
        poller.read()
        kernel.with_cgroup(7, 2, "/box", limit=4 * GIB, usage=4 * GIB, droppable=1 * GIB, slab=2 * GIB)

        assert poller.read().scopes[1].used_bytes == 1 * GIB, "a cheap reading"
        assert groups_of(kernel)[0].used_bytes == 1 * GIB

    def test_kills_for_a_limit_above_are_told_apart_where_the_kernel_counts_them(self, kernel: KernelTree) -> None:
        found = []
        for version in (1, 2):
            kernel.with_cgroup(7, version, "/box", limit=4 * GIB, usage=GIB, oom_kills=2)
            found.append(groups_of(kernel)[0].has_run_out)
        kernel.write(f"{MOUNT}/box/memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 2\n")
        found.append(groups_of(kernel)[0].has_run_out)

        assert found == [True, True, False]

    @VERSIONS
    def test_of_nested_limits_the_smallest_counts(self, kernel: KernelTree, version: int) -> None:
        kernel.with_cgroup(7, version, "/a/b/c", limit=8 * GIB, usage=1)
        kernel.with_group(version, "/a/b", limit=None, usage=1).with_group(version, "/a", limit=2 * GIB, usage=1)

        assert [group.limit_bytes for group in groups_of(kernel)] == [8 * GIB, 2 * GIB]
        assert kernel.poller(7).limit_bytes() == 2 * GIB

    @VERSIONS
    @pytest.mark.parametrize("group", ["/docker/abc", "/elsewhere/abc"])
    def test_inside_a_container_the_mount_is_the_group(self, kernel: KernelTree, version: int, group: str) -> None:
        kernel.with_cgroup(7, version, "/docker/abc", limit=4 * GIB, usage=1, mounted="/docker/abc")
        kernel.write("/proc/7/cgroup", f"4:memory:{group}\n" if version == 1 else f"0::{group}\n")

        assert kernel.poller(7).limit_bytes() == 4 * GIB

    @VERSIONS
    def test_without_a_limit_the_machine_is_the_limit(self, kernel: KernelTree, version: int) -> None:
        kernel.with_cgroup(7, version, "/box", limit=None, usage=1)

        assert (groups_of(kernel), kernel.poller(7).limit_bytes()) == ((), 16 * GIB)

    @VERSIONS
    def test_the_count_of_kills_is_the_own_groups_also_without_a_limit(self, kernel: KernelTree, version: int) -> None:
        kernel.write("/proc/vmstat", "nr_free_pages 1\noom_kill 9\n")
        of_machine = kernel.poller(7).oom_kills()
        kernel.with_cgroup(7, version, "/box", limit=None, usage=1, oom_kills=3)

        assert (of_machine, kernel.poller(7).oom_kills()) == (9, 3)

    @VERSIONS
    def test_between_two_exact_readings_usage_is_followed(self, kernel: KernelTree, version: int) -> None:
        kernel.with_cgroup(7, version, "/box", limit=4 * GIB, usage=1 * GIB)
        poller = kernel.poller(7)
        poller.read()
        kernel.with_cgroup(7, version, "/box", limit=4 * GIB, usage=3 * GIB, droppable=1 * GIB)

        assert [scope.used_bytes for scope in poller.read().scopes] == [4 * GIB, 2 * GIB]

    def test_where_both_versions_are_mounted_the_one_with_the_controller_counts(self, kernel: KernelTree) -> None:
        kernel.with_cgroup(7, 2, "/other", limit=1 * GIB, usage=1)
        unified = (kernel.root / "proc/7/mountinfo").read_text()
        kernel.with_cgroup(7, 1, "/box", limit=4 * GIB, usage=1)
        kernel.write("/proc/7/mountinfo", unified + (kernel.root / "proc/7/mountinfo").read_text())

        assert kernel.poller(7).limit_bytes() == 4 * GIB


class TestTree:
    def test_descendants_count_and_neighbours_do_not(self, kernel: KernelTree) -> None:
        kernel.with_process(8, parent=7, pss=2 * GIB, swap=64 * MIB, name="a (b) c")
        kernel.with_process(9, parent=8, pss=3 * GIB)
        kernel.with_process(10, parent=1, pss=1 * GIB, rss=5 * GIB)

        tree = tree_of(kernel)

        assert tree is not None
        assert (tree.bytes, tree.swap_bytes) == (6 * GIB, 64 * MIB)
        assert (tree.largest_rss_bytes, tree.neighbour_rss_bytes) == (3 * GIB, 5 * GIB)

    def test_orphans_of_the_session_count(self, kernel: KernelTree) -> None:
        kernel.with_process(8, parent=1, session=7, pss=2 * GIB).with_process(9, parent=8, pss=3 * GIB)

        tree = tree_of(kernel)

        assert tree is not None and tree.bytes == 6 * GIB

    def test_pages_shared_by_a_fork_are_counted_once(self, kernel: KernelTree) -> None:
        kernel.with_process(7, pss=600 * MIB, rss=1 * GIB).with_process(8, parent=7, pss=600 * MIB, rss=1 * GIB)

        tree = tree_of(kernel)

        assert tree is not None and tree.bytes == 1200 * MIB

    def test_without_pss_the_resident_size_stands_in(self, kernel: KernelTree) -> None:
        (kernel.root / "proc/7/smaps_rollup").unlink()

        poller = kernel.poller(7)

        assert poller.read().process_bytes == 1 * GIB
        assert any("smaps_rollup" in words for words in poller.missing())

    def test_between_two_exact_readings_growth_is_followed(self, kernel: KernelTree) -> None:
        kernel.with_process(7, pss=1 * GIB, rss=2 * GIB).with_process(8, parent=7, pss=1 * GIB)
        tree = ProcessTree(7, KernelFiles(kernel.root))
        tree.find()
        tree.exact()
        kernel.with_process(7, pss=1 * GIB, rss=3 * GIB).with_process(8, parent=7, pss=1 * GIB, rss=5 * GIB)

        followed = tree.estimate()

        assert followed.bytes == 2 * GIB + 1 * GIB + 4 * GIB

    def test_a_process_that_is_gone_has_no_memory(self, kernel: KernelTree) -> None:
        assert kernel.poller(99).read().process_bytes == 0
        assert tree_of(kernel, 99) is None
        assert process_memory(99, KernelFiles(kernel.root)) is None

    def test_process_that_ends_between_two_readings_holds_nothing(self) -> None:
        tree = ProcessTree(999_999_999, KernelFiles())
        tree.follow()
        assert tree.pids == () and tree.estimate().resident_bytes == 0


class TestGpus:
    CARDS = ((1, 10), (2, 20), (3, 30))

    @pytest.mark.parametrize(
        ("visible", "used"),
        [(None, [1, 2, 3]), ("2,0", [3, 1]), ("GPU-x-1", [2]), ("", []), ("-1", []), ("1,-1,0", [2])],
    )
    def test_only_visible_ones_are_read(
        self, monkeypatch: pytest.MonkeyPatch, visible: str | None, used: list[int]
    ) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

        assert [gpu.memory_used_bytes for gpu in Gpus(FakeNvml(list(self.CARDS)), visible).devices()] == used

    def test_a_driver_that_fails_shows_none_and_is_not_asked_again(self) -> None:
        nvml = FakeNvml(list(self.CARDS), fails=True)
        gpus = Gpus(nvml)

        assert (gpus.devices(), gpus.devices(), nvml.times_initialised) == ((), (), 1)

    def test_the_driver_is_opened_once(self) -> None:
        nvml = FakeNvml([(1, 10)])
        gpus = Gpus(nvml, "0")

        card = GpuDevice(uuid="GPU-x-0", name="Card of tests", memory_used_bytes=1, memory_total_bytes=10)
        assert gpus.devices() == gpus.devices() == (card,)
        assert nvml.times_initialised == 1


class TestMissing:
    def test_each_source_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        poller = KernelTree(tmp_path).poller(7)

        sample = poller.read()

        assert (sample.scopes, sample.process_bytes, sample.limit_bytes) == ((), 0, None)
        assert poller.oom_kills() is None
        assert [words.partition(" (")[0] for words in poller.missing()] == [
            "RAM of the machine",
            "limits of containers",
            "shared pages",
            "memory stalls",
        ]

    def test_a_complete_machine_lacks_nothing(self, kernel: KernelTree) -> None:
        kernel.with_host(16 * GIB, available=12 * GIB, swap=GIB, swap_free=GIB)
        kernel.with_cgroup(7, 2, "/box", limit=GIB, usage=1).with_stalls("/proc/pressure/memory", 0.0)

        assert kernel.poller(7).missing() == ()

    def test_no_swap_and_an_unread_gpu_are_named(self, kernel: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("highnoon.shared.memory.gpu._pynvml", lambda: None)
        kernel.write("/proc/driver/nvidia/version", "NVRM version\n")

        missing = MemoryPoller(7, root=kernel.root).missing()

        assert "swap (the machine has none)" in missing
        assert "GPU memory (pip install nvidia-ml-py)" in missing


class TestSchedule:
    def test_the_trials_own_limit_counts_beside_the_others(self, kernel: KernelTree) -> None:
        kernel.with_cgroup(7, 2, "/box", limit=4 * GIB, usage=2 * GIB)

        sample = kernel.poller(7, trial_limit_bytes=2 * GIB).read()

        assert sample.limit_bytes == 2 * GIB
        assert [(scope.name, scope.used_bytes) for scope in sample.scopes] == [
            ("host", 4 * GIB),
            (f"{MOUNT}/box", 2 * GIB),
            ("trial", 1 * GIB),
        ]

    def test_exact_readings_come_as_often_as_their_cost_allows(self, kernel: KernelTree) -> None:
        now, poller = self.poller(kernel)
        kernel.with_process(8, parent=7, pss=2 * GIB)  # only an exact reading finds it

        seen = {}
        for now[0] in (0.5, 0.9, 1.1):
            seen[now[0]] = poller.read(True).process_bytes // GIB

        assert seen == {0.5: 1, 0.9: 1, 1.1: 3}

    def test_calm_memory_is_rarely_read_exactly_unless_it_moves(self, kernel: KernelTree) -> None:
        now, poller = self.poller(kernel)
        kernel.with_process(8, parent=7, pss=2 * GIB)

        now[0] = 200.0
        calm = poller.read(False).process_bytes // GIB
        kernel.with_host(16 * GIB, available=10 * GIB)
        moved = poller.read(False).process_bytes // GIB

        assert (calm, moved) == (1, 3)

    def poller(self, kernel: KernelTree) -> tuple[list[float], MemoryPoller]:
        """Its clock, and a poller whose exact readings take 10 ms."""
        now = [0.0]
        poller = kernel.poller(7, clock=lambda: now[0])
        poller.exact()
        poller.schedule.cost_s = 0.010
        return now, poller


class TestThisMachine:
    def test_this_process_is_seen(self) -> None:
        sample = MemoryPoller().read()
        host = sample.scope("host")
        own = process_memory(os.getpid())

        assert host is not None and own is not None and sample.process_bytes > 0
        assert 0 < own.private_bytes <= own.pss_bytes <= own.rss_bytes < host.limit_bytes
        assert sample.limit_bytes is not None and sample.limit_bytes <= host.limit_bytes

    def test_memory_that_was_freed_again_is_in_the_peak(self) -> None:
        poller = MemoryPoller()
        held = bytearray(os.urandom(1) * (512 * MIB))
        del held

        sample = poller.read()

        assert sample.peak_bytes > sample.process_bytes + 100 * MIB


def test_kernel_file_of_many_records_is_read_whole() -> None:
    # The kernel gives some 4 KB of such a file at once; the last records of this one are the stack's and later
    text = KernelFiles().text("/proc/self/maps")
    assert text is not None and len(text) > 8192 and "[stack]" in text


def test_a_kept_file_of_a_process_that_has_ended_is_closed() -> None:
    files = KernelFiles()
    with subprocess.Popen(["sleep", "60"]) as process:
        assert files.text(f"/proc/{process.pid}/statm", keep_open=True)
        process.kill()

    assert files.text(f"/proc/{process.pid}/statm", keep_open=True) is None
    assert files._open == {}


def test_pollers_leave_no_file_open() -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    MemoryPoller().read()
    before = open_files()
    for _ in range(10):
        MemoryPoller().read()
    assert open_files() == before
