"""The process of a local trial: how it ended is known whenever it is asked, and no trial holds up the others."""

from __future__ import annotations

import atexit
import ctypes
import ctypes.util
import importlib
import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

import pytest

import highnoon as hn
from highnoon.local import trial as local_trial
from highnoon.local.process import Launcher, TrialProcess, _outcome
from highnoon.local.study_channel import StudyChannel
from highnoon.local.trial import LocalTrial, final_outcome, wait_for_ended
from highnoon.shared.domain.errors import EveryTrialFailed
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.repetition import Repeats
from highnoon.shared.objective.trial_pipe import Pipe, PipeChannel
from highnoon.shared.objective.trial_task import TrialTask
from highnoon.shared.runtime.processes import end_openmp_threads
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import StartedTrial
from tests.support import eventually

_NO_PROCESS = 2**22 + 1
"""Above the largest id that Linux gives."""


def leaves(params: dict[str, Any]) -> float:
    os._exit(3)


def a_task() -> TrialTask:
    return TrialTask(study="digits", number=0, params={}, repeats=Repeats(seed=1), saved="unused")


@pytest.mark.parametrize("spawn", [False, True], ids=["fork", "spawn"])
def test_the_first_status_stays(spawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("of a user, which imports ignore")])
    process = Launcher(leaves, spawn=spawn).start(a_task())
    eventually(lambda: process.poll() is not None, 30, what="it has ended")
    assert process.poll() == 3
    assert process.end() == 3


def test_traceback_of_an_objective_that_cannot_be_imported_has_no_frame_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imports_nothing.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = _outcome(lambda: importlib.import_module("imports_nothing").f, a_task(), cast(PipeChannel, None))
    files = re.findall(r'File "(.+)", line', outcome.traceback)
    assert files == [__file__, str(tmp_path / "imports_nothing.py")]


def test_trial_removes_the_semaphores_that_it_has_made() -> None:
    """Of loky's and of others that are spawned. Else multiprocessing's tracker warns of a leak, or is killed before."""
    program = """
        import multiprocessing.util
        from highnoon.shared.runtime.processes import forget_exit_functions, leave
        forget_exit_functions()
        kept = multiprocessing.get_context("spawn").Semaphore()
        leave(0, as_interpreter=True)
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_trial_does_not_wait_for_a_pool_that_it_has_left_open() -> None:
    """Whose finalizer ends and joins its processes, which may ignore SIGTERM."""
    program = """
        import multiprocessing.util
        from highnoon.shared.runtime.processes import forget_exit_functions, leave
        forget_exit_functions()
        kept = multiprocessing.get_context("spawn").Semaphore()
        multiprocessing.util.Finalize(None, print, ("joined",), exitpriority=15)
        leave(0, as_interpreter=True)
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_trial_may_use_joblib_where_its_parent_has_used_it() -> None:
    """As in a notebook that scores a baseline first: loky keeps its executor, and a fork has none of its threads."""
    program = """
        import os
        from joblib import Parallel, delayed
        from highnoon.shared.runtime.processes import forget_exit_functions, leave

        def doubled():
            return Parallel(n_jobs=2, timeout=20)(delayed(int)(number) for number in range(2))

        doubled()
        pid = os.fork()
        if pid == 0:
            forget_exit_functions()
            leave(0 if doubled() == [0, 1] else 1, as_interpreter=True)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """More than `select` can watch, as data loaders open them."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1500:
        pytest.skip("this shell allows no process so many files")
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for file in files:
        os.close(file)


def test_program_with_many_open_files_can_run_trials(many_open_files: None) -> None:
    def objective(params: dict[str, Any]) -> float:
        hn.report(1.0, 0)
        return float(hn.should_prune())

    manager = hn.HPOTrialManager("digits")
    manager.optimize(objective, {"x": ("int", 0, 9)}, n_trials=2, n_jobs=2, show_progress=False)

    assert [trial.value for trial in manager.trials] == [0.0, 0.0]


def parallel_loop() -> None:
    """As LightGBM, XGBoost and scikit-learn run them: by GNU OpenMP, with two threads."""
    gomp = ctypes.CDLL(ctypes.util.find_library("gomp"))
    gomp.GOMP_parallel(gomp.omp_get_num_threads, None, 2, 0)


@pytest.mark.skipif(ctypes.util.find_library("gomp") is None, reason="needs libgomp")
def test_trial_runs_parallel_loops_after_one_has_run_here() -> None:
    def objective(params: dict[str, Any]) -> float:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # nothing else ends a wait for threads that are not there
        parallel_loop()
        return 0.5

    parallel_loop()
    manager = hn.HPOTrialManager("digits")
    manager.optimize(objective, {"x": ("int", 0, 9)}, n_trials=2, n_jobs=2, show_progress=False)

    assert [trial.value for trial in manager.trials] == [0.5, 0.5]


@pytest.mark.skipif(ctypes.util.find_library("gomp") is None, reason="needs libgomp")
def test_forked_process_does_not_wait_for_the_parallel_loops_of_its_parent() -> None:
    parallel_loop()
    child = multiprocessing.get_context("fork").Process(target=end_openmp_threads)
    child.start()
    child.join(20)
    child.kill()
    child.join()
    assert child.exitcode == 0


def test_result_that_comes_while_a_process_is_looked_at_counts() -> None:
    # Given a trial that gives its result and ends just before its exit status is read
    ours, theirs = socket.socketpair()
    other_end = PipeChannel(Pipe(theirs))

    def ends_now(_: int) -> int:
        if not sent:
            sent.append(other_end.result(Outcome(ending=Ending.COMPLETED, value=0.5)))
        return 0

    sent: list[None] = []
    started = StartedTrial(trial_id=1, number=0, params={})
    channel = StudyChannel(cast(OptunaStudy, None), 1)
    trial = LocalTrial(started, TrialProcess(ours, _NO_PROCESS, ends_now), channel, Scoring(direction="minimize"))

    # When it is looked at until it has ended
    while not wait_for_ended([trial]):
        pass

    # Then it has its result
    assert final_outcome(trial).value == 0.5
    theirs.close()


def test_trial_that_reports_without_a_pause_does_not_hold_up_the_others(tmp_path: Path) -> None:
    reports, next_begun = tmp_path / "reports", tmp_path / "next begun"

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 1:
            eventually(reports.exists, 30, what="the other one reports")
        if params["x"] == 2:
            next_begun.touch()
        give_up_at = time.monotonic() + 30
        while params["x"] == 0 and time.monotonic() < give_up_at:
            if next_begun.exists():
                return 1.0
            for step in range(1000):
                hn.report(0.0, step)
            reports.touch()
        return 0.0

    manager = hn.HPOTrialManager("digits", storage=f"sqlite:///{tmp_path}/hpo.db", pruner="none")
    for x in range(3):
        manager.enqueue({"x": x})
    manager.optimize(objective, {"x": ("int", 0, 2)}, n_trials=3, n_jobs=2, show_progress=False)

    assert [trial.value for trial in manager.trials] == [1.0, 0.0, 0.0]


def test_trial_that_takes_long_to_leave_does_not_hold_up_the_others(tmp_path: Path) -> None:
    leaving, done = tmp_path / "leaving", tmp_path / "done"

    def leave() -> None:
        leaving.touch()
        eventually(done.exists, 3, what="the other one has its answer")

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 0:
            atexit.register(leave)
            return 0.0
        eventually(leaving.exists, 30, what="the other one leaves")
        began = time.monotonic()
        hn.should_prune()
        done.touch()
        return time.monotonic() - began

    manager = hn.HPOTrialManager("digits", storage=f"sqlite:///{tmp_path}/hpo.db")
    for x in range(2):
        manager.enqueue({"x": x})
    manager.optimize(objective, {"x": ("int", 0, 1)}, n_trials=2, n_jobs=2, show_progress=False)

    assert manager.trials[1].value < 2


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_threads_of_a_trial_finish_their_work_before_its_process_ends(
    tmp_path: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_trial, "_EXIT_S", 60.0)
    working, go = tmp_path / "working", tmp_path / "go"

    def work(name: str) -> None:
        working.touch()
        while not go.exists():
            time.sleep(0.01)
        (tmp_path / name).touch()

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 0:
            threading.Thread(target=work, args=("thread",)).start()
            ThreadPoolExecutor(1).submit(work, "pool")
            return 0.0
        while not working.exists():
            time.sleep(0.01)
        hn.should_prune()  # the other one's result has been read then
        go.touch()
        return 0.0

    manager = hn.HPOTrialManager("digits", storage=f"sqlite:///{tmp_path}/hpo.db", isolation=isolation)
    for x in range(2):
        manager.enqueue({"x": x})
    manager.optimize(objective, {"x": ("int", 0, 1)}, n_trials=2, n_jobs=2, show_progress=False)

    assert (tmp_path / "thread").exists() and (tmp_path / "pool").exists()


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_open_files_are_flushed_before_a_thread_that_never_ends(
    tmp_path: Path, isolation: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_trial, "_EXIT_S", 0.5)

    def objective(params: dict[str, Any]) -> float:
        table = (tmp_path / "table.csv").open("w")
        table.write("written before the result")
        threading.Thread(target=threading.Event().wait).start()
        atexit.register(table.close)
        return 0.5

    manager = hn.HPOTrialManager("digits", isolation=isolation)
    manager.optimize(objective, {"x": ("int", 0, 1)}, n_trials=1, show_progress=False)

    assert (manager.best_value, (tmp_path / "table.csv").read_text()) == (0.5, "written before the result")
    assert [line for line in caplog.messages if "after its result" in line] == [
        "trial 0 was killed 0.5 s after its result: a thread, an executor or an atexit function of it had not ended; "
        "atexit functions that had not run are skipped"
    ]


def test_copy_of_a_program_does_not_wait_for_the_programs_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_trial, "_EXIT_S", 60.0)
    go = threading.Event()
    with ThreadPoolExecutor(1) as threads, ProcessPoolExecutor(1) as processes:
        threads.submit(go.wait)
        processes.submit(abs, 1).result()
        began = time.monotonic()
        try:
            manager = hn.HPOTrialManager("digits", isolation="fork")
            manager.optimize(lambda params: 0.0, {"x": ("int", 0, 1)}, n_trials=1, show_progress=False)
        finally:
            go.set()
        assert processes.submit(abs, -2).result() == 2
    assert time.monotonic() - began < 30


def test_trial_that_was_killed_ends_while_a_process_of_it_still_reports(tmp_path: Path) -> None:
    reports, done = tmp_path / "reports", tmp_path / "done"

    def objective(params: dict[str, Any]) -> float:
        if os.fork() == 0:  # the death of its parent does not end it
            for step in range(600):
                hn.report(1.0, step)
                reports.touch()
                time.sleep(0.05)
            done.touch()
            os._exit(0)
        eventually(reports.exists, 30, what="its process reports")
        os.kill(os.getpid(), signal.SIGKILL)
        return 0.0

    manager = hn.HPOTrialManager("digits", storage=f"sqlite:///{tmp_path}/hpo.db", pruner="none")
    with pytest.raises(EveryTrialFailed, match="SIGKILL"):
        manager.optimize(objective, {"x": ("int", 0, 1)}, n_trials=1, n_jobs=2, show_progress=False)

    assert not done.exists()


def test_result_of_a_trial_that_leaves_is_kept_when_a_person_interrupts(tmp_path: Path) -> None:
    leaving, saved = tmp_path / "leaving", tmp_path / "model.txt"

    def leave() -> None:
        leaving.touch()
        time.sleep(30)  # it is killed before

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 0:
            saved.write_text("a model")
            hn.save_artifact(saved)
            atexit.register(leave)
            return 0.5
        eventually(leaving.exists, 30, what="the other one leaves")
        hn.should_prune()  # the other one's result has been read then
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(30)
        return 0.0

    manager = hn.HPOTrialManager("digits", storage=f"sqlite:///{tmp_path}/hpo.db", artifacts=str(tmp_path / "files"))
    for x in range(2):
        manager.enqueue({"x": x})
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # another test may have left its own
    with pytest.raises(KeyboardInterrupt):
        manager.optimize(objective, {"x": ("int", 0, 1)}, n_trials=2, n_jobs=2, show_progress=False)
    signal.signal(signal.SIGINT, earlier)

    assert [(str(trial.state), trial.value) for trial in manager.trials] == [("COMPLETE", 0.5), ("FAIL", None)]
    assert manager.artifact(0, "model.txt", to=tmp_path / "kept").read_text() == "a model"
