"""The guard: twelve weaknesses of the public system that ours must not have, and what holds for any history."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highnoon.memory import EnterpriseMemoryManager, StopCooldown, lines_of, start_line, stop_message
from highnoon.shared.domain.errors import InvalidInput, TrialStopped
from highnoon.shared.domain.states import OPTUNA_STATE, Ending, TrialState
from highnoon.shared.memory.guard import Kind, MemoryGuard, Mitigation, Verdict
from highnoon.shared.memory.policy import MemoryPolicy, Trend, check_settings, slope, trend_of
from highnoon.shared.memory.poller import MemoryPoller, MemorySample, Scope
from highnoon.shared.objective.attempt import run_attempt
from highnoon.shared.store.trial_results import trial_result
from tests.unit.kernel_tree import KernelTree

MIB, GIB = 1 << 20, 1 << 30
HOST = 32 * GIB


def at(seconds: float, usage: float, *, limit: int = HOST, own: int | None = None, **known: Any) -> MemorySample:
    """A moment on one host; the trial holds nearly all of what is used by default."""
    used = int(usage * limit)
    return MemorySample(
        at_s=seconds,
        scopes=(Scope(name="host", limit_bytes=limit, used_bytes=used),),
        process_bytes=int(0.9 * used) if own is None else own,
        **known,
    )


def guard_on(baseline: MemorySample, **written: Any) -> MemoryGuard:
    return MemoryGuard(MemoryPolicy.for_limit(baseline.limit_bytes, **written), baseline)


def until_stopped(guard: MemoryGuard, samples: Iterable[MemorySample]) -> list[Verdict]:
    verdicts = []
    for sample in samples:
        verdicts.append(guard.judge(sample))
        if verdicts[-1].kind is Kind.STOP:
            break
    return verdicts


def stopped(verdicts: list[Verdict]) -> bool:
    return verdicts[-1].kind is Kind.STOP


class TestTwelveWeaknesses:
    def test_01_swap_that_was_in_use_before_is_no_spike(self) -> None:
        guard = guard_on(at(0, 0.5, swap_used_bytes=800 * MIB))

        assert guard.judge(at(1, 0.5, swap_used_bytes=800 * MIB)).kind is Kind.OK

    @pytest.mark.parametrize(("step_s", "checks"), [(0.5, 2), (1.0, 2), (60.0, 5), (600.0, 5)])
    def test_02_swap_that_grows_below_the_spike_at_every_check_stops(self, step_s: float, checks: int) -> None:
        guard = guard_on(at(0, 0.94))

        verdicts = until_stopped(
            guard,
            (
                at(n * step_s, 0.94, swap_used_bytes=n * 450 * MIB, process_swap_bytes=n * 400 * MIB)
                for n in range(1, 21)
            ),
        )

        assert (len(verdicts), verdicts[-1].reason) == (checks, f"swap_spike:{checks * 450}MB")
        assert verdicts[-1].cause == "swap"

    def test_02_swapping_that_another_process_does_is_no_reason(self) -> None:
        guard = guard_on(at(0, 0.94))

        verdicts = until_stopped(guard, (at(n, 0.94, swap_used_bytes=n * 450 * MIB) for n in range(1, 21)))

        assert not stopped(verdicts)

    def test_02_a_trial_that_drives_others_into_swap_is_stopped(self) -> None:
        guard = guard_on(at(0, 0.94, own=10 * GIB))

        verdicts = until_stopped(
            guard,
            (at(n, 0.94, own=10 * GIB + n * 450 * MIB, swap_used_bytes=n * 450 * MIB) for n in range(1, 21)),
        )

        assert verdicts[-1].reason == "swap_spike:900MB"

    def test_03_one_check_below_the_threshold_resets_nothing(self) -> None:
        guard = guard_on(at(0, 0.90))
        saw = [0.96] * 9 + [0.94]

        verdicts = until_stopped(guard, (at(n, saw[n % 10], own=20 * GIB + n * 200 * MIB) for n in range(40)))

        assert stopped(verdicts)
        assert len(verdicts) == 11
        assert verdicts[-1].reason == "sustained_high_memory_stable:96.0%"

    def test_04_a_process_that_shrinks_does_not_excuse_a_machine_that_fills(self) -> None:
        guard = guard_on(at(0, 0.90, own=20 * GIB))

        verdicts = until_stopped(
            guard, (at(n, min(1.0, 0.96 + n * 0.001), own=20 * GIB - n * 60 * MIB) for n in range(1, 41))
        )

        assert verdicts[-1].reason == "sustained_high_memory_rising:97.0%"

    def test_04_falling_earns_one_extension_and_the_ceiling_none(self) -> None:
        falls = guard_on(at(0, 0.985))
        slowly = until_stopped(falls, (at(n, 0.985 - n * 0.0005) for n in range(1, 60)))
        over = guard_on(at(0, 0.998)).judge(at(1, 0.995))

        # Ten steps of grace, and five more, once.
        assert (len(slowly), slowly[-1].reason) == (15, "sustained_high_memory_falling:97.7%")
        assert over.reason == "memory_ceiling:99.5%"

    def test_05_a_neighbour_that_fills_the_machine_stops_no_other_trial(self) -> None:
        small = {"own": 1 * GIB, "is_largest": False}
        guard = guard_on(at(0, 0.50, **small))

        verdicts = until_stopped(guard, (at(n, min(0.999, 0.90 + n * 0.005), **small) for n in range(1, 60)))

        assert verdicts[-1].kind is Kind.WARN
        assert (verdicts[-1].count, verdicts[-1].grace) == (10, 10)

    def test_05_the_neighbour_that_grows_is_stopped(self) -> None:
        guard = guard_on(at(0, 0.50, own=1 * GIB, is_largest=False))

        verdicts = until_stopped(
            guard,
            (at(n, min(0.985, 0.90 + n * 0.005), own=1 * GIB + n * 160 * MIB, is_largest=False) for n in range(1, 60)),
        )

        assert stopped(verdicts)

    def test_05_siblings_do_not_all_stop_on_one_signal(self, tmp_path: Path) -> None:
        now = [100.0]
        managers = [
            EnterpriseMemoryManager(
                source=lambda close: at(now[0], 0.995, own=8 * GIB),
                cooldown=StopCooldown(tmp_path / "turn", lambda: now[0]),
            )
            for _ in range(3)
        ]

        at_once = [manager.check().kind for manager in managers]
        now[0] += 6
        later = [manager.check().kind for manager in managers[1:]]

        assert at_once == [Kind.STOP, Kind.WARN, Kind.WARN]
        assert later == [Kind.STOP, Kind.WARN]

    @pytest.mark.parametrize("version", [1, 2])
    def test_06_a_container_is_judged_by_its_own_limit(self, tmp_path: Path, version: int) -> None:
        kernel = KernelTree(tmp_path).with_host(64 * GIB, available=60 * GIB).with_process(7, pss=3 * GIB)
        kernel.with_cgroup(7, version, "/box", limit=4 * GIB, usage=3 * GIB)
        poller = kernel.poller(7)
        guard = guard_on(poller.read(True))

        kernel.with_cgroup(7, version, "/box", limit=4 * GIB, usage=int(3.99 * GIB))
        verdict = guard.judge(poller.exact())

        assert guard.policy.limit_bytes == 4 * GIB
        assert verdict.kind is Kind.STOP
        assert verdict.reason == "memory_ceiling:99.7%"

    def test_06_stalls_count_where_the_kernel_reports_them(self) -> None:
        guard = guard_on(at(0, 0.96))

        assert guard.judge(at(1, 0.96, stalled_share=0.65)).reason == "memory_stall:65.0%"

    def test_07_children_and_gpus_are_seen_and_shared_pages_counted_once(self, tmp_path: Path) -> None:
        kernel = KernelTree(tmp_path).with_host(16 * GIB, available=8 * GIB)
        kernel.with_process(7, pss=1 * GIB, rss=2 * GIB).with_process(8, parent=7, pss=3 * GIB, rss=4 * GIB)

        sample = kernel.poller(7, gpu=(60 * GIB, 80 * GIB)).read()

        assert sample.process_bytes == 4 * GIB
        assert [(gpu.memory_used_bytes, gpu.memory_total_bytes) for gpu in sample.gpus] == [(60 * GIB, 80 * GIB)]

    def test_08_steps_of_any_length_are_judged_by_the_clock(self) -> None:
        def after_five(step_s: float) -> Trend:
            points = [(n * step_s, n * 60 * MIB) for n in range(6)]
            return trend_of(slope(points), free_bytes=4 * GIB, surplus_bytes=0)

        assert after_five(0.001) is Trend.RISING  # 60 GB/s
        assert after_five(60.0) is Trend.STABLE  # 1 MB/s: an hour of head-room

    def test_08_a_trial_that_will_not_reach_the_next_check_stops_now(self) -> None:
        guard = guard_on(at(0, 0.80))

        verdicts = until_stopped(guard, (at(n * 60.0, 0.80 + n * 0.04) for n in range(1, 6)))

        assert verdicts[-1].reason == "memory_exhausted_in:60.0s"
        assert verdicts[-1].usage < 0.97

    def test_08_one_large_allocation_that_stays_is_no_forecast(self) -> None:
        guard = guard_on(at(0, 0.50))
        saw = [*[0.50] * 5, *[0.97] * 9]

        verdicts = until_stopped(guard, (at(n, usage) for n, usage in enumerate(saw, 1)))

        assert not stopped(verdicts)

    @pytest.mark.parametrize(
        ("limit_gib", "written", "free_mib"),
        [
            (1024, None, 16 * 1024),  # 98 % would leave 20 GB idle
            (512, 0.95, 26214),  # a person's word is kept
            (64, None, 3276),  # the guide's 95 %
            (8, 0.99, 512),  # 1 % would be less than one allocation
            (1, 0.99, 102),  # ... but half of a small limit is not to be lost
        ],
    )
    def test_09_the_threshold_keeps_neither_too_much_nor_too_little_free(
        self, limit_gib: int, written: float | None, free_mib: int
    ) -> None:
        limit = limit_gib * GIB
        policy = MemoryPolicy.for_limit(limit, memory_warning_pct=written)

        assert (limit - policy.threshold_bytes(limit)) // MIB == free_mib
        assert policy.calm_bytes(limit) < policy.threshold_bytes(limit) < policy.ceiling_bytes(limit) < limit

    def test_10_milder_actions_come_first(self) -> None:
        guard = guard_on(at(0, 0.90))

        verdicts = until_stopped(guard, (at(n, 0.96) for n in range(1, 20)))

        kinds = [verdict.kind for verdict in verdicts]
        assert kinds == [Kind.MITIGATE, *[Kind.WARN] * 3, Kind.MITIGATE, *[Kind.WARN] * 4, Kind.STOP]
        assert [verdict.mitigation for verdict in verdicts if verdict.mitigation] == list(Mitigation)
        assert verdicts[-1].reason == "sustained_high_memory_stable:96.0%"

    def test_10_what_a_failed_training_held_is_released(self) -> None:
        released: list[bool] = []

        class Weights:
            def __del__(self) -> None:
                released.append(True)

        def train() -> None:
            weights = Weights()
            raise MemoryError(type(weights).__name__)

        caught: list[BaseException] = []  # kept, as a log or a notebook keeps it
        try:
            with manager_on([at(0, 0.5)]):
                train()
        except MemoryError as error:
            caught.append(error)

        assert released == [True]
        assert caught[0].__traceback__ is not None

    def test_11_a_stop_is_an_outcome_of_its_own_and_never_a_value(self, tmp_path: Path) -> None:
        manager = manager_on([at(0, 0.5), at(1, 0.995, peak_bytes=31 * GIB)], cooldown=StopCooldown(tmp_path / "turn"))

        def objective(params: dict[str, Any]) -> float:
            manager.step()
            return 1.0

        outcome = run_attempt(objective, {}, Silent())
        found = trial_result(outcome)

        assert (outcome.ending, outcome.cause, outcome.value) == (Ending.STOPPED, "memory_guard", None)
        assert outcome.message == "memory_guard: memory_ceiling:99.5% (peak 31744MB, limit 32768MB)"
        assert OPTUNA_STATE[outcome.ending] is TrialState.PRUNED
        assert found.value is None
        assert found.system_attrs["constraints:memory"] > 0

    def test_11_the_constraint_is_the_share_above_the_limit(self, tmp_path: Path) -> None:
        samples = [at(0, 0.5), at(1, 1.0, peak_bytes=48 * GIB)]

        with pytest.raises(TrialStopped) as caught:
            manager_on(samples, cooldown=StopCooldown(tmp_path / "turn")).step()

        assert caught.value.constraint == 0.5

    def test_12_a_percentage_for_a_fraction_is_refused_with_what_was_meant(self) -> None:
        with pytest.raises(InvalidInput) as caught:
            EnterpriseMemoryManager(95, 0, 0, -1)

        found = {problem.key: str(problem) for problem in caught.value.problems}
        assert "Write 0.95." in found["memory_warning_pct"]
        assert set(found) == {"memory_warning_pct", "memory_grace_steps", "prefetch_buffer_size", "trial_memory_limit"}

    def test_12_a_limit_is_a_size_as_people_write_it_and_no_trial_runs_in_five_bytes(self) -> None:
        check_settings("manager", trial_memory_limit="1500 MB")
        for written, hint in ((5, "5 GB"), ("1500 Megs", "1500 MB"), (True, "2 GB")):
            with pytest.raises(InvalidInput, match="trial_memory_limit: must be a size of memory") as caught:
                check_settings("manager", trial_memory_limit=written)
            assert caught.value.problems[0].hint == f'Write for example "{hint}".'

    def test_12_the_peak_between_two_checks_is_the_kernels(self, tmp_path: Path) -> None:
        kernel = KernelTree(tmp_path).with_host(16 * GIB, available=8 * GIB)
        kernel.with_process(7, pss=1 * GIB, rss=2 * GIB, highest_rss=3 * GIB)
        poller = kernel.poller(7)
        before = poller.exact()
        kernel.with_process(7, pss=1 * GIB, rss=2 * GIB, highest_rss=7 * GIB)
        after = poller.exact()

        # What an earlier trial of this process needed does not count; then 5 GiB above the RSS of now do.
        assert guard_on(before).peak_bytes == 1 * GIB
        assert guard_on(after).peak_bytes == 6 * GIB

    def test_12_on_a_machine_without_readings_the_guard_logs_that_it_is_off(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        manager = EnterpriseMemoryManager(source=MemoryPoller(7, root=tmp_path).read)

        assert manager.check().kind is Kind.OK
        assert manager.policy.warning_fraction == 0.95
        assert "memory cannot be seen here, the guard is off" in caplog.text

    def test_12_each_missing_source_is_logged_once_in_a_process(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("highnoon.memory._reported", set())
        monkeypatch.setattr(MemoryPoller, "missing", lambda self: ("swap (the machine has none)",))

        for _ in range(2):
            EnterpriseMemoryManager()

        assert caplog.text.count("[Memory] Not watched here: swap (the machine has none)") == 1


class TestContract:
    @pytest.mark.parametrize(
        ("reported_gib", "fraction", "grace", "prefetch"),
        [
            (2, 0.85, 5, 1),
            (7.7, 0.85, 5, 1),
            (15.6, 0.90, 8, 2),
            (31.2, 0.95, 10, None),
            (62.7, 0.95, 15, None),
            (125.5, 0.98, 20, None),
            (None, 0.95, 10, None),
        ],
    )
    def test_the_guides_table(
        self, reported_gib: float | None, fraction: float, grace: int, prefetch: int | None
    ) -> None:
        policy = MemoryPolicy.for_limit(None if reported_gib is None else int(reported_gib * GIB))

        assert (policy.warning_fraction, policy.grace_steps, policy.prefetch_buffer_size) == (fraction, grace, prefetch)

    def test_what_a_person_set_wins(self) -> None:
        policy = MemoryPolicy.for_limit(8 * GIB, memory_warning_pct=0.5, memory_grace_steps=3, prefetch_buffer_size=4)

        assert (policy.warning_fraction, policy.grace_steps, policy.prefetch_buffer_size) == (0.5, 3, 4)
        assert policy.threshold_bytes(8 * GIB) == 4 * GIB

    def test_the_lines_are_the_guides(self) -> None:
        policy = MemoryPolicy.for_limit(64197 * MIB)
        warning = Verdict(kind=Kind.WARN, usage=0.962, process_bytes=45123 * MIB, trend=Trend.RISING, count=3, grace=10)
        normal = Verdict(kind=Kind.OK, usage=0.821, is_normalized=True)
        spike = Verdict(kind=Kind.STOP, cause="swap", reason="swap_spike:612MB", swap_used_bytes=1412 * MIB)

        assert start_line(policy) == (
            "[Memory] EnterpriseMemoryManager: total=64197MB, warning_threshold=60987MB (95%)"
        )
        assert lines_of(warning) == ["[Memory] WARNING (3/10): System memory at 96.2% (process=45123MB), trend=rising"]
        assert lines_of(normal) == ["[Memory] Memory normalized: 82.1%, resetting warning count"]
        assert lines_of(spike) == ["[Memory] CRITICAL: Swap spike of 612MB, 1412MB in use, stopping"]
        assert lines_of(Verdict(kind=Kind.OK, usage=0.5)) == []
        assert stop_message(spike).startswith("swap: swap_spike:612MB ")

    def test_an_episode_ends_after_three_calm_checks_and_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        samples = [at(0, 0.9), *[at(n, 0.96) for n in (1, 2)], *[at(n, 0.82) for n in range(3, 8)], at(8, 0.96)]
        manager = manager_on(samples)

        with caplog.at_level(logging.INFO):
            counts = [manager.check().count for _ in samples[1:]]

        assert counts == [1, 2, 0, 0, 0, 0, 0, 1]
        assert caplog.text.count("[Memory] Memory normalized: 82.0%, resetting warning count") == 1

    def test_rising_memory_stops_with_the_guides_reason(self) -> None:
        guard = guard_on(at(0, 0.94))

        verdicts = until_stopped(guard, (at(n, 0.95 + n * 0.002) for n in range(1, 30)))

        assert verdicts[-1].reason == "sustained_high_memory_rising:97.0%"

    @pytest.mark.parametrize(("usage", "looks"), [(0.5, 1), (0.9, 4)])
    def test_short_steps_are_not_all_checked(self, usage: float, looks: int) -> None:
        now = [0.0]
        asked: list[bool] = []

        def source(is_close: bool) -> MemorySample:
            asked.append(is_close)
            return at(now[0], usage)

        manager = EnterpriseMemoryManager(source=source, clock=lambda: now[0])
        for _ in range(1000):
            manager.step()
            now[0] += 2 / 1000

        assert len(asked) == 1 + looks

    @pytest.mark.parametrize(
        ("limit", "usage", "pause_s"), [(64 * GIB, 0.2, 10.0), (16 * GIB, 0.2, 4.8), (2 * GIB, 0.2, 2)]
    )
    def test_no_check_while_memory_cannot_have_come_close(self, limit: int, usage: float, pause_s: float) -> None:
        now = [0.0]
        looks: list[float] = []

        def source(is_close: bool) -> MemorySample:
            looks.append(now[0])
            return at(now[0], usage, limit=limit)

        manager = EnterpriseMemoryManager(source=source, clock=lambda: now[0])
        for _ in range(250):
            manager.step()
            now[0] += 0.1

        assert looks[2] - looks[1] == pytest.approx(pause_s, abs=0.11)

    def test_under_pressure_the_prefetch_shrinks(self) -> None:
        manager = manager_on([at(0, 0.9), *[at(n, 0.96) for n in range(1, 9)]])
        before = manager.prefetch_buffer_size
        for _ in range(8):
            manager.check()

        assert (before, manager.prefetch_buffer_size) == (None, 1)

    def test_a_trial_above_its_own_limit_stops_during_the_cooldown(self, tmp_path: Path) -> None:
        cooldown = StopCooldown(tmp_path / "turn")
        assert cooldown.begin() and not cooldown.begin()
        own = Scope(name="trial", limit_bytes=2 * GIB, used_bytes=2 * GIB, is_own=True)
        samples = [replace(at(n, 0.1), scopes=(own,)) for n in (0, 1)]

        with pytest.raises(TrialStopped, match=r"memory_guard: memory_ceiling:100\.0%"):
            manager_on(samples, cooldown=cooldown).step()

    def test_an_unreadable_time_of_the_last_stop_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "turn").write_text("x" * 20)
        cooldown = StopCooldown(tmp_path / "turn")

        assert cooldown.begin() and not cooldown.begin()


fractions = st.floats(min_value=0.0, max_value=1.2)


@st.composite
def histories(draw: st.DrawFn, usages: st.SearchStrategy[float] = fractions) -> list[MemorySample]:
    """Two to twenty moments of one trial beside others, under a machine's and its own limit; swap is quiet."""
    own_limit = draw(st.sampled_from([4 * GIB, 16 * GIB]))
    moments, now = [], 0.0
    for _ in range(draw(st.integers(2, 20))):
        now += draw(st.floats(min_value=0.001, max_value=90))
        own = int(draw(usages) * own_limit)
        moments.append(
            MemorySample(
                at_s=now,
                scopes=(
                    Scope(name="host", limit_bytes=HOST, used_bytes=int(draw(usages) * HOST)),
                    Scope(name="trial", limit_bytes=own_limit, used_bytes=own, is_own=True),
                ),
                process_bytes=own,
                is_largest=draw(st.booleans()),
                stalled_share=draw(st.floats(0, 1)),
            )
        )
    return moments


@st.composite
def policies(draw: st.DrawFn) -> MemoryPolicy:
    return MemoryPolicy.for_limit(
        draw(st.sampled_from([4 * GIB, 32 * GIB, 256 * GIB])),
        memory_warning_pct=draw(st.none() | st.floats(0.3, 1.0)),
        memory_grace_steps=draw(st.none() | st.integers(1, 12)),
    )


class TestProperties:
    @settings(max_examples=100, deadline=None)
    @given(policies(), histories())
    def test_it_never_stops_below_the_threshold(self, policy: MemoryPolicy, moments: list[MemorySample]) -> None:
        guard = MemoryGuard(policy, moments[0])
        for moment in moments[1:]:
            verdict = guard.judge(moment)
            below = all(s.used_bytes < policy.threshold_bytes(s.limit_bytes) for s in moment.scopes)
            assert not below or verdict.kind is Kind.OK

    @settings(max_examples=100, deadline=None)
    @given(policies(), histories())
    def test_it_always_stops_above_the_ceiling(self, policy: MemoryPolicy, moments: list[MemorySample]) -> None:
        guard = MemoryGuard(policy, moments[0])
        for moment in moments[1:]:
            verdict = guard.judge(moment)
            host, own = moment.scopes
            answerable = own.used_bytes >= policy.ceiling_bytes(own.limit_bytes) or (
                host.used_bytes >= policy.ceiling_bytes(HOST) and moment.process_bytes >= HOST / 2
            )
            assert not answerable or verdict.kind is Kind.STOP

    @settings(max_examples=200, deadline=None)
    @given(policies(), histories(), st.data())
    def test_more_pressure_never_has_a_milder_answer(
        self, policy: MemoryPolicy, moments: list[MemorySample], data: st.DataObject
    ) -> None:
        guard = MemoryGuard(policy, moments[0])
        for moment in moments[1:-1]:
            guard.judge(moment)
        twin = copy.deepcopy(guard)

        verdict = guard.judge(moments[-1])
        worse = twin.judge(with_more_pressure(moments[-1], data))

        assert worse.kind >= verdict.kind

    @settings(max_examples=50, deadline=None)
    @given(histories(), st.integers(1, 2000), st.integers(0, 2000))
    def test_more_swap_never_has_a_milder_answer(self, moments: list[MemorySample], mib: int, more: int) -> None:
        guard = MemoryGuard(MemoryPolicy.for_limit(HOST), moments[0])
        for moment in moments[1:-1]:
            guard.judge(moment)
        twin = copy.deepcopy(guard)
        swapped = {"swap_used_bytes": mib * MIB, "process_swap_bytes": mib * MIB // 2}

        verdict = guard.judge(replace(moments[-1], **swapped))
        worse = twin.judge(replace(moments[-1], **{**swapped, "swap_used_bytes": (mib + more) * MIB}))

        assert worse.kind >= verdict.kind


def with_more_pressure(moment: MemorySample, data: st.DataObject) -> MemorySample:
    more = st.integers(0, 8 * GIB)
    grown = data.draw(more)
    scopes = tuple(
        replace(scope, used_bytes=scope.used_bytes + (grown if scope.is_own else grown + data.draw(more)))
        for scope in moment.scopes
    )
    return replace(
        moment,
        scopes=scopes,
        process_bytes=moment.process_bytes + grown,
        stalled_share=min(1.0, moment.stalled_share + data.draw(st.floats(0, 1))),
    )


def manager_on(samples: list[MemorySample], **known: Any) -> EnterpriseMemoryManager:
    """A manager that meets these samples one after the other, the first at its start."""
    coming = iter(samples)
    return EnterpriseMemoryManager(source=lambda is_close: next(coming), **known)


class Silent:
    def report(self, value: float, step: int) -> None:
        pass

    def should_prune(self) -> bool:
        return False
