"""Trials that do not fit, on a kernel that keeps their limit and on one that leaves it to us.

Each ends within two seconds of crossing its limit, with the cause that it has, and nothing of it is left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from shared.current import MemoryWishes
from shared.states import Ending
from shared.trial import Outcome
from tests.integration.test_trial_process import Diary, begin
from tests.support import eventually
from workers.allowance import TrialLimits
from workers.cgroup import TrialGroup, TrialGroups
from workers.kill_order import KillNotes
from workers.node_memory import NodeMemory
from workers.trial_memory import TrialMemory
from workers.watch import Limits, Watch

MIB = 1 << 20
LIMIT = 200 * MIB


@dataclass
class Bench:
    """Runs objectives under a limit of 200 MiB."""

    folder: Path
    group: TrialGroup | None

    def outcome_of(self, objective: str) -> Outcome:
        attempt = begin(self.folder, objective, cgroup=self.group.procs if self.group else None)
        pid = attempt.running.pid
        assert pid is not None
        limits = TrialLimits.of(LIMIT, LIMIT)
        memory = TrialMemory(pid, limits, NodeMemory(), KillNotes(self.folder / "kills"), group=self.group)
        times = Limits(trial_timeout_s=30.0, stall_timeout_s=None, renew_s=1.0, kill_grace_s=1.0)
        try:
            return Watch(attempt.running, attempt.output, Diary(), times, memory).run()
        finally:
            attempt.running.clean_up()
            attempt.output.close()


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
def test_what_crosses_its_limit_is_ended_with_its_cause(bench: Bench, objective: str) -> None:
    outcome = bench.outcome_of(objective)
    print(outcome)
    assert outcome.ending is Ending.STOPPED, outcome
    assert outcome.cause == ("oom_kernel" if bench.group else "memory_limit")
    assert outcome.constraint is not None and outcome.constraint > 0
    assert outcome.memory is not None and outcome.memory.limit_bytes == LIMIT
    assert outcome.memory.peak_bytes >= 0.98 * LIMIT
    over = [at_s for at_s, used in outcome.memory.samples if used >= 0.98 * LIMIT]
    assert outcome.duration_s is not None
    assert outcome.duration_s - (over[0] if over else outcome.memory.samples[-1][0]) < 2.0
    eventually(lambda: not _children_that_eat(), what="nothing of it is left")


def test_what_comes_close_to_its_limit_is_asked_to_stop_and_keeps_its_last_report(bench: Bench) -> None:
    outcome = bench.outcome_of("fills_up_slowly_and_reports")
    print(outcome)
    assert (outcome.ending, outcome.cause) == (Ending.STOPPED, "memory_limit"), outcome
    assert outcome.value is not None and outcome.signal is None, "it ended by itself, at a report"


def test_what_fits_completes_and_its_samples_are_kept(bench: Bench) -> None:
    outcome = bench.outcome_of("grows_by_modest_steps")
    assert outcome.ending is Ending.COMPLETED
    assert outcome.memory is not None and 60 * MIB <= outcome.memory.peak_bytes < 120 * MIB, outcome.memory


def _children_that_eat() -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True) if "held = bytearray" in str(child.cmdline())]
