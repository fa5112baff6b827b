"""Real trial processes, watched without any service: whatever the objective does, the Outcome records exactly that."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from highnoon.shared.domain.errors import LeaseLost
from highnoon.shared.domain.memory_sizes import NO_WISHES, MemoryWishes
from highnoon.shared.domain.safe_reports import SafeReports
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import MetricHistory, Outcome, Report
from highnoon.shared.memory.cgroup import CgroupMemory
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.objective.repetition import Repeats
from highnoon.shared.objective.seeds import trial_seed
from highnoon.shared.objective.trial_pipe import Pipe
from highnoon.shared.objective.trial_task import TrialTask
from highnoon.shared.runtime.processes import die_with_parent, identify
from highnoon.workers import kernel
from highnoon.workers.monitor.kill_selection import KillRecords
from highnoon.workers.monitor.memory_policy import TrialLimits
from highnoon.workers.monitor.time_limits import TimeLimits
from highnoon.workers.monitor.trial_memory import TrialMemory
from highnoon.workers.monitor.trial_monitor import TrialMonitor
from highnoon.workers.trial import fork_server as fork_servers
from highnoon.workers.trial.confinement import Confinement
from highnoon.workers.trial.fork_server import ForkServer
from highnoon.workers.trial.launch import ProcessTrial, ThisProcess, TrialHandle, launch, wait_any
from highnoon.workers.trial.output import Output
from highnoon.workers.trial.process import Assignment
from highnoon.workers.trial.scratch import remove_scratch
from highnoon.workers.trial.template import Template
from tests.support import eventually

HERE = Path(__file__).parent.parent


@dataclass
class Diary:
    """Services that a test can read and steer: what was reported, what study and node want."""

    prune_from_step: int | None = None
    end_with: Outcome | None = None
    lost: bool = False
    answers: bool = True
    keeps: int | None = None
    safe: SafeReports | None = None
    questions: int = 0
    suggestions: Any = None
    reports: list[Report] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    histories: list[MetricHistory] = field(default_factory=list)
    wakeup_fd: int = field(default_factory=lambda: os.eventfd(0, os.EFD_NONBLOCK))

    def take_report(self, report: Report) -> bool:
        self.reports.append(report)
        return self.keeps is None or len(self.reports) <= self.keeps

    def take_history(self, history: MetricHistory) -> None:
        self.histories.append(history)

    def ask_should_prune(self) -> None:
        self.questions += 1
        os.eventfd_write(self.wakeup_fd, 1)

    def prune_answer(self) -> bool | None:
        if not self.answers:
            return None
        return self.prune_from_step is not None and self.reports[-1].step >= self.prune_from_step

    def safe_reports(self) -> SafeReports | None:
        return self.safe

    def interruption(self) -> Outcome | None:
        self.looks.append(time.monotonic())
        with suppress(BlockingIOError):
            os.eventfd_read(self.wakeup_fd)
        if self.lost:
            raise LeaseLost("another worker has it")
        return self.end_with


CANCELLED = Outcome(ending=Ending.CANCELLED, cause="cancelled", message="cancelled by a person")
RELEASED = Outcome(ending=Ending.RELEASED, cause="drain", message="handed back")


@contextmanager
def fork_server(confinement: Confinement | None = None) -> Iterator[ForkServer]:
    """With a template of its own."""
    with closing(Template(confinement)) as template, closing(template.fork_server({})) as forks:
        yield forks


@dataclass
class Attempt:
    """One launched trial and all that a test wants to know of it."""

    trial: TrialHandle
    output: Output
    folder: Path
    owned: ExitStack
    has_ended: bool = False

    def watch(self, diary: Diary, *, memory: TrialMemory | None = None, **limits: Any) -> Outcome:
        defaults = {"trial_timeout_s": None, "stall_timeout_s": None, "kill_grace_s": 0.3}
        try:
            return TrialMonitor(self.trial, self.output, diary, TimeLimits(**{**defaults, **limits}), memory).run()
        finally:
            self.has_ended = self.trial.clean_up(2.0)
            remove_scratch(self.folder / "work")
            self.owned.close()
            self.output.close()


def begin(
    tmp_path: Path,
    objective: str,
    *,
    isolation: str = "fork",
    x: float = 1.0,
    seed: int = 1,
    scoring: Scoring | None = None,
    memory: MemoryWishes = NO_WISHES,
    cgroup: str | None = None,
    confinement: Confinement | None = None,
    defines_by_run: bool = False,
    forks: ForkServer | None = None,
) -> Attempt:
    output = Output(tmp_path / "trial.log", limit_bytes=1_000_000, tail_bytes=4_000)
    assignment = Assignment(
        task=TrialTask(
            study="digits",
            number=4,
            params={"x": x},
            saved=str(tmp_path / "work" / "tmp" / "saved"),
            checkpoints=str(tmp_path / "checkpoints"),
            defines_by_run=defines_by_run,
            scoring=scoring or Scoring(),
            repeats=Repeats(seed=seed),
            memory=memory,
        ),
        ticket=17,
        attempt=1,
        objective=objective if ":" in objective else f"objectives.py:{objective}",
        code_dir=str(HERE),
        work_dir=str(tmp_path / "work"),
        cgroup=cgroup,
        confinement=confinement,
    )
    owned = ExitStack()
    server = forks or owned.enter_context(fork_server(confinement))
    trial = launch(isolation, assignment, output, server)
    return Attempt(trial=trial, output=output, folder=tmp_path, owned=owned)


def outcome_of(tmp_path: Path, objective: str, diary: Diary | None = None, **limits: Any) -> Outcome:
    return begin(tmp_path, objective).watch(diary or Diary(), **limits)


@pytest.mark.parametrize(("objective", "ending"), [("good", Ending.COMPLETED), ("raises", Ending.KILLED)])
def test_a_result_counts_though_the_kernel_has_killed_a_part_of_the_trial_for_a_neighbour(
    tmp_path: Path, objective: str, ending: Ending
) -> None:
    sizes = {"used_bytes": 0, "swap_bytes": 0, "peak_bytes": 0, "limit_bytes": 1 << 30}
    killed = CgroupMemory(path="/trial", **sizes, oom_kills=1, has_run_out=False)
    group: Any = SimpleNamespace(memory=lambda: killed, holds=lambda pid: True)
    limits = TrialLimits(hard_bytes=1 << 30, soft_bytes=1 << 30, share_bytes=1 << 30)
    attempt = begin(tmp_path, objective)
    memory = TrialMemory(
        attempt.trial.pid, limits, MemoryPoller(), KillRecords(tmp_path), group=group, clock=lambda: 0.0
    )
    assert attempt.watch(Diary(), memory=memory).ending is ending


def test_a_trial_that_is_gone_once_it_has_its_assignment_has_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a trial that kills its parent, and a supervisor that the machine lets wait meanwhile
    pids: list[int] = []
    send, fork = Pipe.send, ForkServer.fork

    def is_reaped(pid: int) -> bool:
        """By the first process of the machine, or by this one, where a test has made it adopt orphans."""
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return not Path(f"/proc/{pid}").exists()

    def noted(server: ForkServer, *given: Any) -> int:
        pids.append(fork(server, *given))
        return pids[-1]

    def sent_and_slept(pipe: Pipe, *events: Any) -> None:
        send(pipe, *events)
        if os.getpid() == ours:
            eventually(lambda: is_reaped(pids[-1]), 30, what="the trial is gone")

    ours = os.getpid()
    monkeypatch.setattr(ForkServer, "fork", noted)
    monkeypatch.setattr(Pipe, "send", sent_and_slept)
    outcome = outcome_of(tmp_path, "objectives.py:kills_its_fork_server")
    assert (outcome.ending, outcome.cause) == (Ending.KILLED, "signal")


@pytest.mark.parametrize("isolation", ["fork", "spawn", "none"])
def test_a_good_objective_completes_in_every_isolation(tmp_path: Path, isolation: str) -> None:
    outcome = begin(tmp_path, "good", isolation=isolation, x=5.0).watch(Diary())
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 9.0)
    assert "x = 5.0" in outcome.log_tail
    assert (tmp_path / "trial.log").read_text() == "x = 5.0\n"


@pytest.mark.parametrize("isolation", ["fork", "none"])
def test_traceback_of_a_failed_import_has_the_users_frames_only(tmp_path: Path, isolation: str) -> None:
    (tmp_path / "train.py").write_text("import no_such_module\n")
    outcome = begin(tmp_path, f"{tmp_path}/train.py:f", isolation=isolation).watch(Diary())
    assert outcome.traceback.splitlines()[:3] == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/train.py", line 1, in <module>',
        "    import no_such_module",
    ]
    assert outcome.traceback.count("  File ") == 1


@pytest.mark.parametrize("isolation", ["fork", "spawn", "none"])
def test_end_of_a_trial_wakes_who_waits_for_it(tmp_path: Path, isolation: str) -> None:
    attempt = begin(tmp_path, "good", isolation=isolation)
    woken = wait_any(attempt.trial.exit_fds(), 60.0)
    assert woken and attempt.trial.poll() is not None
    assert attempt.watch(Diary()).ending is Ending.COMPLETED


@pytest.mark.parametrize("isolation", ["fork", "spawn", "none"])
def test_reports_come_in_order_and_pruning_ends_the_trial(tmp_path: Path, isolation: str) -> None:
    diary = Diary(prune_from_step=2)
    outcome = begin(tmp_path, "reports_and_prunes", isolation=isolation).watch(diary)
    assert outcome.ending is Ending.PRUNED
    assert diary.reports == [Report(step=step, value=1.0 + step) for step in range(3)]


@pytest.mark.parametrize("isolation", ["fork", "none"])
def test_trial_does_not_ask_about_reports_that_are_safe(tmp_path: Path, isolation: str) -> None:
    diary = Diary(prune_from_step=2, safe=SafeReports(for_s=600.0, before_step=2))
    outcome = begin(tmp_path, "reports_and_prunes", isolation=isolation).watch(diary)
    assert outcome.ending is Ending.PRUNED
    assert diary.reports == [Report(step=step, value=1.0 + step) for step in range(3)]
    assert diary.questions == 2, "about the first report, and about the first one that is not safe"


def test_trial_process_joins_the_next_cgroup_ahead_and_again_only_where_that_failed(tmp_path: Path) -> None:
    # Given a server whose next process shall join a group that is not there yet. A plain file shows who joins.
    procs = tmp_path / "group" / "cgroup.procs"
    with fork_server() as forks:
        forks.next_cgroup = str(procs)
        begin(tmp_path, "good", forks=forks).watch(Diary())
        # When its trial comes, it joins by itself
        procs.parent.mkdir()
        procs.touch()
        forks.next_cgroup = None
        begin(tmp_path, "good", cgroup=str(procs), forks=forks).watch(Diary())
        assert procs.read_text() == "0"
        # And one that has joined ahead does not join again
        procs.write_text("")
        forks.next_cgroup = str(procs)
        begin(tmp_path, "good", forks=forks).watch(Diary())
        eventually(lambda: procs.read_text() == "0", what="the next process has joined")
        procs.write_text("")
        forks.next_cgroup = None
        begin(tmp_path, "good", cgroup=str(procs), forks=forks).watch(Diary())
        assert procs.read_text() == ""


BUDGET = Scoring(param_budget=1000, lambda_efficiency=0.1)


@pytest.mark.parametrize("isolation", ["fork", "spawn", "none"])
def test_reports_and_result_are_scored_in_the_trial_in_every_isolation(tmp_path: Path, isolation: str) -> None:
    diary = Diary()
    outcome = begin(tmp_path, "sized", isolation=isolation, x=0.1, scoring=BUDGET).watch(diary)
    assert (outcome.ending, outcome.value, outcome.loss) == (Ending.COMPLETED, pytest.approx(0.105), 0.1)
    assert (outcome.params_count, outcome.active_params) == (500, 200)
    assert [report.value for report in diary.reports] == [outcome.value] * 2


def test_a_size_may_be_returned(tmp_path: Path) -> None:
    outcome = begin(tmp_path, "returns_its_size", x=0.1, scoring=BUDGET).watch(Diary())
    assert (outcome.value, outcome.loss, outcome.params_count) == (pytest.approx(0.105), 0.1, 500)


def test_trial_without_a_size_fails_and_explains_how_to_give_it(tmp_path: Path) -> None:
    outcome = begin(tmp_path, "good", scoring=BUDGET).watch(Diary())
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "no_param_count")
    assert "hpo.report_params(n)" in outcome.message


def test_the_size_of_a_killed_trial_is_known(tmp_path: Path) -> None:
    outcome = begin(tmp_path, "says_its_size_and_dies").watch(Diary())
    assert (outcome.ending, outcome.signal, outcome.params_count) == (Ending.KILLED, "SIGKILL", 500)


@pytest.mark.parametrize("isolation", ["fork", "spawn", "none"])
def test_what_a_trial_logs_is_drawn_in_every_isolation(tmp_path: Path, isolation: str) -> None:
    outcome = begin(tmp_path, "logs", isolation=isolation).watch(Diary())
    assert outcome.metric_history == {"accuracy": ((0, 0.0), (1, 0.5), (2, "nan"))}
    assert outcome.metrics == {"accuracy": "nan", "f1": 0.5}


def test_the_curves_of_a_killed_trial_are_known(tmp_path: Path) -> None:
    diary = Diary()
    outcome = begin(tmp_path, "logs_and_dies").watch(diary)
    assert (outcome.ending, outcome.signal) == (Ending.KILLED, "SIGKILL")
    assert diary.histories and outcome.metric_history == diary.histories[-1]
    steps = [step for step, _ in outcome.metric_history["accuracy"]]
    assert steps[0] == 0 and len(steps) > 10


def test_beyond_a_hard_budget_a_trial_never_trains(tmp_path: Path) -> None:
    hard = Scoring(param_budget=1000, param_budget_hard=True)
    outcome = begin(tmp_path, "too_large", scoring=hard).watch(Diary())
    assert (outcome.ending, outcome.cause, outcome.constraint) == (Ending.STOPPED, "param_budget", 0.5)
    assert outcome.params_count == 1500
    assert "training begins" not in outcome.log_tail


def test_an_exception_keeps_its_traceback_and_its_output(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "raises")
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "exception")
    assert outcome.message.startswith("ZeroDivisionError")
    assert "return 1 / 0" in outcome.traceback
    assert "about to divide" in outcome.log_tail


@pytest.mark.parametrize(
    ("objective", "said"),
    [("returns_none", "None"), ("returns_nan", "nan"), ("returns_text", "str"), ("returns_tuple", "tuple")],
)
def test_result_that_is_no_number_fails_and_is_named(tmp_path: Path, objective: str, said: str) -> None:
    outcome = outcome_of(tmp_path, objective)
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "invalid_result")
    assert said in outcome.message


def test_sys_exit_is_the_objectives_failure(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "exits")
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "exited")
    assert "sys.exit(3)" in outcome.message


def test_hard_exit_is_reported_with_its_status(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "exits_hard")
    assert (outcome.ending, outcome.cause, outcome.exit_status) == (Ending.FAILED, "exited", 3)
    assert "status 3" in outcome.message
    assert "leaving" in outcome.log_tail


def test_end_before_the_users_code_is_no_failure_of_the_trial(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "tmp").write_text("where its scratch folder should be")
    outcome = outcome_of(tmp_path, "good")
    assert (outcome.ending, outcome.cause, outcome.exit_status) == (Ending.KILLED, "not_begun", 70)


def test_a_segfault_is_the_objectives_own_fault(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "segfaults")
    assert (outcome.ending, outcome.cause, outcome.signal) == (Ending.FAILED, "crashed", "SIGSEGV")


def test_a_kill_from_outside_is_infrastructure(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "kills_itself")
    assert (outcome.ending, outcome.cause, outcome.signal) == (Ending.KILLED, "signal", "SIGKILL")


@pytest.mark.parametrize("objective", ["hangs", "hangs_in_c", "ignores_sigterm"])
def test_nothing_outlives_its_timeout(tmp_path: Path, objective: str) -> None:
    outcome = outcome_of(tmp_path, objective, trial_timeout_s=0.3)
    assert (outcome.ending, outcome.cause) == (Ending.TIMED_OUT, "timeout")
    assert outcome.duration_s is not None and outcome.duration_s < 30.0


def test_no_progress_is_a_stall(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "hangs", stall_timeout_s=0.3)
    assert (outcome.ending, outcome.cause) == (Ending.TIMED_OUT, "stalled")


def test_a_trial_that_waits_for_the_sampler_has_not_stalled(tmp_path: Path) -> None:
    # Given a sampler whose answer takes twice the stall timeout, as when the database is away
    asked: list[float] = []

    def answer() -> dict[str, float] | None:
        return {"value": 0.25} if time.monotonic() - asked[-1] > 4.0 else None

    sampler = SimpleNamespace(ask=lambda _: asked.append(time.monotonic()), take=lambda _: True, answer=answer)

    attempt = begin(tmp_path, "suggests_one", defines_by_run=True)
    outcome = attempt.watch(Diary(suggestions=sampler), stall_timeout_s=2.0)

    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 0.25)
    assert len(asked) == 1


def test_study_and_node_are_obeyed_while_the_trial_holds_the_gil(tmp_path: Path) -> None:
    diary = Diary()
    outcome_of(tmp_path, "hangs_in_c", diary, trial_timeout_s=4.0)
    gaps = [after - before for before, after in itertools.pairwise(diary.looks)]
    assert len(gaps) >= 3 and max(gaps) < 3.0, "not only when it ends"


def test_trial_that_waits_for_the_pruner_obeys_its_time_limit(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "reports_and_prunes", Diary(answers=False), trial_timeout_s=3.0, kill_grace_s=60.0)
    assert (outcome.ending, outcome.cause, outcome.exit_status) == (Ending.TIMED_OUT, "timeout", 0)


def test_process_that_sigkill_does_not_end_holds_neither_outcome_nor_supervisor(tmp_path: Path) -> None:
    # Given a trial over its time limit whose process hangs in the kernel (state D): it never ends, whatever is sent
    attempt = begin(tmp_path, "hangs")
    unkillable = Unkillable(attempt.trial)
    attempt.trial = unkillable
    # When it is monitored
    began = time.monotonic()
    outcome = attempt.watch(Diary(), trial_timeout_s=0.3)
    # Then its outcome is there after the limit and three graces, and its supervisor knows that it must be replaced
    assert (outcome.ending, outcome.exit_status, outcome.signal) == (Ending.TIMED_OUT, None, None)
    assert time.monotonic() - began < 30.0 and not attempt.has_ended
    assert unkillable.signals[0] == signal.SIGTERM and signal.SIGKILL in unkillable.signals
    unkillable.trial.clean_up(5.0)


class Unkillable:
    """A trial that no signal reaches and whose end is never seen."""

    def __init__(self, trial: TrialHandle) -> None:
        self.trial = trial
        self.pid, self.pipe = trial.pid, trial.pipe
        self.signals: list[int] = []

    def exit_fds(self) -> list[int]:
        return []

    def poll(self) -> None:
        return None

    def kill(self, signum: int) -> None:
        self.signals.append(signum)

    def clean_up(self, wait_s: float) -> bool:
        return False


def test_a_cancelled_trial_is_stopped_at_its_next_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_GO_FILE", str(tmp_path / "never"))
    outcome = outcome_of(tmp_path, "patient", Diary(end_with=CANCELLED), kill_grace_s=20.0)
    assert outcome.ending is Ending.CANCELLED
    assert outcome.exit_status == 0, "it was asked, not killed"


def test_a_drained_trial_is_handed_back_even_if_it_never_reports(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "hangs", Diary(end_with=RELEASED))
    assert (outcome.ending, outcome.cause) == (Ending.RELEASED, "drain")


@pytest.mark.parametrize("objective", ["wraps_what_stops_it", "makes_a_number_of_what_stops_it"])
def test_result_that_our_request_caused_is_ignored(tmp_path: Path, objective: str) -> None:
    outcome = outcome_of(tmp_path, objective, Diary(end_with=RELEASED), kill_grace_s=20.0)
    assert (outcome.ending, outcome.value) == (Ending.RELEASED, None)
    assert outcome.exit_status == 0, "it was asked, not killed"


def test_trial_that_ends_before_it_reads_our_request_keeps_its_result(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "good", Diary(end_with=RELEASED), kill_grace_s=20.0)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0)


def test_a_lost_lease_kills_the_trial_and_writes_nothing(tmp_path: Path) -> None:
    attempt = begin(tmp_path, "hangs")
    with pytest.raises(LeaseLost):
        attempt.watch(Diary(lost=True))
    assert attempt.trial.pid is not None
    assert identify(attempt.trial.pid) is None


def test_a_million_lines_are_bounded_and_the_trial_completes(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "prints_a_million_lines")
    assert outcome.ending is Ending.COMPLETED
    assert outcome.log_tail.endswith("line 999999\n")
    assert sum(path.stat().st_size for path in tmp_path.glob("trial.log*")) <= 1_000_000


def test_children_of_a_trial_do_not_outlive_it(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "leaves_children")
    assert outcome.ending is Ending.COMPLETED
    found = re.search(r"child (\d+)", outcome.log_tail)
    assert found is not None
    eventually(lambda: identify(int(found[1])) is None, what="the trial's child is gone")


def test_user_code_may_use_multiprocessing(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "uses_multiprocessing")
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 3.0), outcome


def test_a_trial_has_a_folder_of_its_own_no_inherited_socket_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = kernel.socket_pair()
    outcome = outcome_of(tmp_path, "shows_surroundings")
    ours.close()
    theirs.close()
    seen = dict(line.partition(" ")[::2] for line in outcome.log_tail.splitlines())
    assert seen["cwd"] == str(HERE), "the study's folder"
    assert seen["work"] == str(tmp_path / "work")
    assert seen["tmp"] == str(tmp_path / "work" / "tmp")
    assert seen["sockets"] == "1", "only its pipe to the supervisor"
    assert seen["session"] == "True"
    assert not (tmp_path / "work").exists(), "an empty folder is removed"


def test_what_a_trial_writes_stays(tmp_path: Path) -> None:
    outcome_of(tmp_path, "writes_a_file")
    assert (tmp_path / "work" / "weights.txt").read_text() == "1.0"
    assert not (tmp_path / "work" / "tmp").exists()


def test_a_retry_repeats_the_randomness(tmp_path: Path) -> None:
    def drawn(seed: int) -> str:
        tail = begin(tmp_path, "shows_surroundings", seed=seed).watch(Diary()).log_tail
        return next(line for line in tail.splitlines() if line.startswith("random"))

    seed = trial_seed(7, 3)
    assert seed == trial_seed(7, 3) != trial_seed(7, 4)
    assert drawn(seed) == drawn(seed) != drawn(seed + 1)


def test_an_objective_that_cannot_be_loaded_is_a_failure_that_names_it(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "not_there")
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "objective")
    assert "not_there" in outcome.message


def test_fork_server_that_died_is_noticed_and_forks_nothing() -> None:
    with fork_server() as forks:
        assert forks.is_alive()
        os.kill(forks.pid, signal.SIGKILL)
        eventually(lambda: not forks.is_alive(), what="its end is noticed")
        ours, theirs = kernel.socket_pair()
        with ours, theirs, pytest.raises(OSError):
            forks.fork(theirs, 1)
        assert forks.wait(forks.pid) is None


def test_fork_server_that_is_stopped_while_it_is_asked_is_killed_within_seconds() -> None:
    with fork_server() as forks:
        os.kill(forks.pid, signal.SIGSTOP)
        ours, theirs = kernel.socket_pair()
        began = time.monotonic()
        with ours, theirs, pytest.raises(TimeoutError):
            forks.fork(theirs, 1)
        assert time.monotonic() - began < 0.9 * fork_servers._ANSWERS_WITHIN_S, "sooner than one that is only slow"
        eventually(lambda: not forks.is_alive(), what="it is killed")


def test_fork_server_that_is_stopped_between_two_trials_counts_as_dead() -> None:
    with fork_server() as forks:
        os.kill(forks.pid, signal.SIGSTOP)
        eventually(lambda: not forks.is_alive(), what="it is noticed without a question")


def test_process_that_hangs_before_it_is_ready_is_replaced_and_its_fork_server_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server whose first process hangs, for instance while it joins its cgroup
    hung, run = tmp_path / "hung", fork_servers.run_forked

    def hangs_once(*arguments: Any) -> NoReturn:
        if not hung.exists():
            die_with_parent(signal.SIGKILL)
            hung.write_text(str(os.getpid()))
            while True:
                signal.pause()
        run(*arguments)

    monkeypatch.setattr(fork_servers, "run_forked", hangs_once)
    monkeypatch.setattr(fork_servers, "_READY_WITHIN_S", 1.0)
    with fork_server() as forks:
        eventually(lambda: hung.exists() and hung.read_text(), what="it hangs")
        # When a trial comes, then it gets another process
        assert begin(tmp_path, "good", forks=forks).watch(Diary()).ending is Ending.COMPLETED
        assert forks.is_alive()
        eventually(lambda: identify(int(hung.read_text())) is None, what="the one that hangs is ended")


def test_fork_server_that_no_signal_ends_counts_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs in the kernel: each further trial would wait for it as long, and be lost."""
    monkeypatch.setattr(fork_servers, "_LOOK_S", 0.1)
    monkeypatch.setattr(fork_servers, "_ANSWERS_WITHIN_S", 0.2)
    monkeypatch.setattr(fork_servers._Server, "obey", lambda self: signal.pause() or True)
    ours, theirs = kernel.socket_pair()
    with fork_server() as forks:
        with monkeypatch.context() as patch:
            patch.setattr(signal, "pidfd_send_signal", lambda pidfd, signum: None)
            with ours, theirs, pytest.raises(TimeoutError):
                forks.fork(theirs, 1)
            assert not forks.is_alive()
        os.kill(forks.pid, signal.SIGKILL)


def test_trial_that_has_no_group_of_its_own_yet_is_killed_all_the_same() -> None:
    """As a spawned one before its `setsid`: no process group has its number, and it belongs to ours."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ours, theirs = kernel.socket_pair()
    trial = ProcessTrial(child.pid, ThisProcess().wait, Pipe(ours))
    with theirs:
        trial.kill(signal.SIGKILL)
        assert eventually(trial.poll, what="it has ended").signum == signal.SIGKILL
        assert trial.clean_up(1.0)
    child.returncode = 0


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_supervisor_that_dies_takes_its_trial_with_it_and_no_other(tmp_path: Path, is_stopped: bool) -> None:
    # Given the template of two supervisors, each with a running trial
    with closing(Template()) as template:
        first, second = (supervisor_of_a_trial(template, tmp_path / name) for name in ("first", "second"))
        # When one is killed, perhaps with a fork server that cannot notice it
        if is_stopped:
            os.kill(first.fork_server, signal.SIGSTOP)
        os.kill(first.pid, signal.SIGKILL)
        os.waitpid(first.pid, 0)
        # Then its trial and its fork server are gone, the other's are not
        eventually(lambda: identify(first.trial) is None, what="the trial is gone")
        eventually(lambda: identify(first.fork_server) is None, what="the fork server is gone")
        assert identify(second.trial) is not None and identify(second.fork_server) is not None
        # And when the template ends, nothing is left
        template.close()
        eventually(lambda: identify(second.trial) is None, what="the other trial is gone")
    os.kill(second.pid, signal.SIGKILL)
    os.waitpid(second.pid, 0)


def test_fork_server_that_dies_is_collected_and_its_supervisor_may_have_another() -> None:
    with closing(Template()) as template:
        for _ in range(3):
            with closing(template.fork_server({"TEST_SHOWN": "1"})) as forks:
                os.kill(forks.pid, signal.SIGKILL)
                eventually(lambda forks=forks: not Path(f"/proc/{forks.pid}").exists(), what="no zombie is left")
        with closing(template.fork_server({})) as forks:
            assert forks.is_alive()


def test_a_template_that_was_stopped_goes_on_and_one_that_died_is_replaced() -> None:
    with closing(Template()) as template:
        first = template.pid
        os.kill(first, signal.SIGSTOP)
        eventually(lambda: kernel.is_stopped(first), what="it is stopped")
        template.keep_alive()
        with closing(template.fork_server({})) as forks:
            assert forks.is_alive() and template.pid == first
        os.kill(first, signal.SIGKILL)
        eventually(lambda: identify(first) is None, what="it is dead")
        with pytest.raises(OSError):
            template.fork_server({})
        template.keep_alive()
        with closing(template.fork_server({})) as forks:
            assert forks.is_alive() and template.pid != first


def test_a_trial_has_no_descriptor_of_another_process(tmp_path: Path) -> None:
    """By one it could signal another slot's supervisor."""
    with closing(Template()) as template, closing(template.fork_server({})) as first:
        assert begin(tmp_path / "first", "good", forks=first).watch(Diary()).ending is Ending.COMPLETED
        with closing(template.fork_server({"TEST_SHOWN": "1"})) as second:
            tail = begin(tmp_path / "second", "shows_descriptors", forks=second).watch(Diary()).log_tail
    assert "TEST_SHOWN 1" in tail and "pidfd" not in tail


@dataclass(frozen=True)
class RunningSupervisor:
    pid: int
    fork_server: int
    trial: int


def supervisor_of_a_trial(template: Template, folder: Path) -> RunningSupervisor:
    """In a process of its own."""
    folder.mkdir()
    note = folder / "note"
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            forks = template.fork_server({})
            note.write_text(f"{forks.pid} {begin(folder, 'hangs', forks=forks).trial.pid} .")
            signal.pause()
        os._exit(0)
    words = eventually(lambda: note.exists() and note.read_text().endswith(".") and note.read_text().split())
    return RunningSupervisor(pid, int(words[0]), int(words[1]))


@pytest.mark.parametrize("isolation", ["fork", "spawn", "none"])
def test_a_guard_inside_a_trial_works_with_the_studys_memory_keys(tmp_path: Path, isolation: str) -> None:
    asked = MemoryWishes(memory_warning_pct=0.42, memory_grace_steps=7, prefetch_buffer_size=3)
    outcome = begin(tmp_path, "shows_memory_policy", isolation=isolation, memory=asked).watch(Diary())
    assert outcome.ending is Ending.COMPLETED, outcome
    assert "policy 0.42 7 3" in outcome.log_tail


@pytest.mark.parametrize(("workers_own", "trials"), [(700, 800), (950, 1000)])
def test_kernel_prefers_a_trial_to_its_supervisor_also_where_the_worker_is_a_likely_victim(
    workers_own: int, trials: int
) -> None:
    # Given a worker as in a Kubernetes pod whose memory has a request below its limit
    runs = (
        "from pathlib import Path; from highnoon.workers.kernel import prefer_as_oom_victim\n"
        f"score = Path('/proc/self/oom_score_adj'); score.write_text('{workers_own}')\n"
        "prefer_as_oom_victim(); print(score.read_text())\n"
    )
    done = subprocess.run([sys.executable, "-c", runs], check=True, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) == trials
