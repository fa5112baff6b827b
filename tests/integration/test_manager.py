"""HPOTrialManager on real storages: memory, SQLite files and PostgreSQL; alone, resumed, and in company."""

from __future__ import annotations

import itertools
import logging
import math
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import optuna
import psycopg2
import pytest

import highnoon as hn
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.errors import (
    EveryTrialFailed,
    InvalidInput,
    NoCompletedTrial,
    ServiceUnavailable,
    StudyConflict,
    UnknownStudy,
    UserInputError,
)
from highnoon.shared.domain.states import TrialState
from tests.support import eventually

SPACE = {"x": ("uniform", -1.0, 1.0), "kind": ("categorical", ["a", "b"])}
GRID = {"x": ("int", 0, 2), "kind": ("categorical", ["a", "b"])}


def parabola(params: dict[str, Any]) -> float:
    return float(params["x"]) ** 2


def study_of(url: str, name: str = "digits") -> optuna.Study:
    """The study as an ordinary Optuna script opens it."""
    return optuna.load_study(study_name=name, storage=url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/hpo.db"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each kind of storage that outlives its process."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> str | None:
    """Each kind of storage that the first rung offers."""
    return None if request.param == "memory" else str(request.getfixturevalue(f"{request.param}_url"))


def in_a_process(program: str, *args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


class TestAlone:
    def test_optimize_returns_the_best_parameters(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=12, storage=storage, seed=1)

        best = hpo.optimize(objective=parabola, search_space=SPACE)

        assert len(hpo.trials) == 12
        assert [trial.number for trial in hpo.trials] == list(range(12))
        assert {trial.state for trial in hpo.trials} == {TrialState.COMPLETE}
        assert best == hpo.best_params == hpo.best_trial.params
        assert hpo.best_value == min(trial.value for trial in hpo.trials) == best["x"] ** 2
        assert set(hpo.get_param_importance()) == {"x", "kind"}
        assert math.isclose(sum(hpo.get_param_importance().values()), 1.0)

    def test_maximize(self) -> None:
        hpo = hn.HPOTrialManager("digits", 10, "maximize", sampler="random", seed=1)

        hpo.optimize(parabola, SPACE)

        assert hpo.best_value == max(trial.value for trial in hpo.trials)

    @pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
    def test_a_seed_repeats_the_study(self, sampler: str) -> None:
        def points(seed: int) -> list[Any]:
            hpo = hn.HPOTrialManager("digits", n_trials=13, sampler=sampler, seed=seed)
            hpo.optimize(parabola, {"x": ("uniform", -1.0, 1.0), "y": ("log_uniform", 1e-3, 1.0)})
            return [trial.params for trial in hpo.trials]

        assert points(3) == points(3)
        assert points(3) != points(4)

    def test_n_trials_counts_the_trials_that_a_call_adds(self, sqlite_url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=3, storage=sqlite_url)

        hpo.optimize(parabola, SPACE)
        hpo.optimize(parabola, SPACE, n_trials=2)

        assert len(hpo.trials) == 5

    def test_an_interrupted_study_is_resumed_by_another_manager(self, database_url: str) -> None:
        hn.HPOTrialManager("digits", n_trials=3, storage=database_url).optimize(parabola, SPACE)

        resumed = hn.HPOTrialManager("digits", storage=database_url, load_if_exists=True)
        assert len(resumed.trials) == 3
        assert resumed.best_value >= 0
        resumed.optimize(parabola, SPACE, n_trials=4)

        assert len(resumed.trials) == 7

    def test_managers_in_memory_share_nothing(self) -> None:
        first, second = hn.HPOTrialManager("digits"), hn.HPOTrialManager("digits")

        first.optimize(parabola, SPACE, n_trials=2)

        assert second.trials == []

    def test_relative_sqlite_file_is_in_the_current_folder(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)

        hn.HPOTrialManager("digits", n_trials=1, storage="sqlite:///hpo.db").optimize(parabola, SPACE)

        with sqlite3.connect(tmp_path / "hpo.db") as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_an_ordinary_optuna_script_reads_and_joins_the_study(self, sqlite_url: str) -> None:
        hn.HPOTrialManager("digits", n_trials=3, storage=sqlite_url).optimize(parabola, SPACE)

        theirs = study_of(sqlite_url)
        theirs.enqueue_trial({"x": 0.125, "kind": "b"})
        hpo = hn.HPOTrialManager("digits", n_trials=1, storage=sqlite_url)
        hpo.optimize(parabola, SPACE)

        assert len(theirs.trials) == len(hpo.trials) == 4
        assert hpo.trials[3].params == {"x": 0.125, "kind": "b"}
        assert theirs.trials[3].value == 0.015625


class TestEnqueued:
    def test_points_before_the_first_call_are_run_first(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=3, storage=storage)
        hpo.enqueue({"x": 0.5})
        hpo.enqueue({"x": 0.25, "kind": "b"})

        hpo.optimize(parabola, SPACE)
        hpo.optimize(parabola, SPACE, n_trials=1)

        assert [trial.params["x"] for trial in hpo.trials[:2]] == [0.5, 0.25]
        assert len(hpo.trials) == 4
        assert not {0.5, 0.25} & {trial.params["x"] for trial in hpo.trials[2:]}

    def test_no_point_is_stored_beside_a_refused_one(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=2, storage=storage, sampler="random")
        for point in ({"x": 0.5}, {"y": 2}, {"x": "half"}):
            hpo.enqueue(point)

        with pytest.raises(InvalidInput, match=r"(?s)none was stored.*y: is no parameter.*x: is outside .*'half'"):
            hpo.optimize(parabola, SPACE)
        hpo.enqueue({"x": 0.5})
        hpo.optimize(parabola, SPACE)

        assert [trial.params["x"] == 0.5 for trial in hpo.trials] == [True, False]


class TestReportsAndPruning:
    @staticmethod
    def learning(params: dict[str, Any]) -> float:
        """Ten epochs of a curve whose level is x."""
        for epoch in range(10):
            hn.report(params["x"] + 1 / (epoch + 1), epoch)
            if hn.should_prune():
                raise hn.TrialPruned
        return float(params["x"])

    def test_median_prunes_what_is_worse_than_the_others(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=25, sampler="random", storage=storage, seed=2)

        hpo.optimize(self.learning, {"x": ("uniform", 0.0, 1.0)})

        pruned = [trial for trial in hpo.trials if trial.state is TrialState.PRUNED]
        complete = [trial for trial in hpo.trials if trial.state is TrialState.COMPLETE]
        assert len(pruned) >= 5
        assert hpo.best_value == min(trial.value for trial in complete)
        assert all(len(trial.reports) == 10 for trial in complete)
        assert all(len(trial.reports) < 10 and trial.value == trial.reports[-1].value for trial in pruned)
        assert min(trial.params["x"] for trial in pruned) > hpo.best_params["x"]

    @pytest.mark.parametrize("pruner", ["hyperband", "percentile", {"name": "median", "n_startup_trials": 2}])
    def test_every_other_pruner_prunes_too(self, pruner: Any) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=40, sampler="random", pruner=pruner, seed=2)

        hpo.optimize(self.learning, {"x": ("uniform", 0.0, 1.0)})

        assert TrialState.PRUNED in {trial.state for trial in hpo.trials}

    def test_none_prunes_nothing(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=20, sampler="random", pruner="none", seed=2)

        hpo.optimize(self.learning, {"x": ("uniform", 0.0, 1.0)})

        assert {trial.state for trial in hpo.trials} == {TrialState.COMPLETE}

    def test_the_managers_own_calls_act_on_the_running_trial(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=3)

        def objective(params: dict[str, Any]) -> float:
            hpo.report(0.5, 0)
            hpo.report(0.1, 0)
            if len(hpo.trials) == 2:
                raise hpo.TrialPruned()
            return float(hpo.should_prune())

        hpo.optimize(objective, SPACE)

        assert [trial.state for trial in hpo.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
        assert [[(r.step, r.value) for r in trial.reports] for trial in hpo.trials] == [[(0, 0.5)]] * 3

    def test_results_without_a_completed_trial_raise_with_counts(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=2)

        def objective(params: dict[str, Any]) -> float:
            raise hn.TrialPruned

        with pytest.raises(NoCompletedTrial, match=r"'digits' has no completed trial yet: it has no trials"):
            hpo.best_value  # noqa: B018
        with pytest.raises(NoCompletedTrial, match=r"no completed trial yet: it has no trials \(timeout\)$"):
            hpo.optimize(objective, SPACE, timeout=1e-9)
        with pytest.raises(NoCompletedTrial, match=r"no completed trial yet: 2 PRUNED$"):
            hpo.optimize(objective, SPACE)
        with pytest.raises(NoCompletedTrial):
            hpo.get_param_importance()


class TestFailures:
    def test_failing_trials_are_kept_and_the_study_goes_on(self, storage: str | None, caplog: Any) -> None:
        results = iter([1.0, None, math.nan, math.inf, "0.5", (0.5, 1), [[0.5]], {"los": 0.5}, True, 2.0])
        hpo = hn.HPOTrialManager("digits", n_trials=10, storage=storage)
        caplog.set_level(logging.INFO, logger="highnoon")

        hpo.optimize(lambda params: next(results), SPACE)

        states = [str(trial.state) for trial in hpo.trials]
        assert states == ["COMPLETE", *["FAIL"] * 2, "COMPLETE", *["FAIL"] * 5, "COMPLETE"]
        failed = [trial for trial in hpo.trials if trial.state is TrialState.FAIL]
        assert {trial.attrs["highnoon:cause"] for trial in failed} == {"invalid_result"}
        assert hpo.trials[3].value == math.inf, "legal to Optuna: it ranks last"
        lines = [record for record in caplog.records if record.getMessage().startswith("action=trial ")]
        assert [record.levelname for record in lines] == ["WARNING" if state == "FAIL" else "INFO" for state in states]
        assert all("\n" not in record.getMessage() for record in caplog.records)
        assert hpo.best_value == 1.0

    def test_the_log_line_of_a_failed_trial_has_no_loss(self, caplog: Any) -> None:
        caplog.set_level(logging.INFO, logger="highnoon")

        def objective(params: dict[str, Any]) -> float:
            hn.report(0.75, 0)
            raise ValueError("no such layer")

        with pytest.raises(EveryTrialFailed):
            hn.HPOTrialManager("digits", n_trials=1).optimize(objective, SPACE)
        (line,) = [line for line in caplog.messages if line.startswith("action=trial ")]
        assert "loss=" not in line

    def test_an_exception_keeps_its_traceback(self) -> None:
        failing = iter([True, False])
        hpo = hn.HPOTrialManager("digits", n_trials=2)

        def objective(params: dict[str, Any]) -> float:
            if next(failing):
                raise ValueError("no such layer")
            return 1.0

        hpo.optimize(objective, SPACE)

        attrs = hpo.trials[0].attrs
        assert attrs["highnoon:message"] == "ValueError: no such layer"
        assert "in objective" in attrs["highnoon:traceback"]

    def test_when_every_trial_fails_the_last_traceback_is_raised(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=3)

        def objective(params: dict[str, Any]) -> float:
            raise ValueError("no data")

        with pytest.raises(EveryTrialFailed, match=r"(?s)all 3 trials failed.*ValueError: no data.*in objective"):
            hpo.optimize(objective, SPACE)
        assert [trial.state for trial in hpo.trials] == ["FAIL"] * 3

    def test_a_further_call_in_which_every_trial_fails_returns_the_best_from_before(self, caplog: Any) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=2)
        best = hpo.optimize(lambda params: 1.0, SPACE)

        def objective(params: dict[str, Any]) -> float:
            raise ValueError("no data")

        assert hpo.optimize(objective, SPACE) == best
        assert "an earlier trial's, and of this call all 2 trials failed\n  2 x ValueError: no data" in caplog.text

    def test_ctrl_c_ends_the_trial_and_the_call(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager("digits", storage=storage)

        def objective(params: dict[str, Any]) -> float:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            hpo.optimize(objective, SPACE)

        assert [(trial.state, trial.attrs["highnoon:cause"]) for trial in hpo.trials] == [("FAIL", "interrupted")]

    def test_a_real_sigint_leaves_no_trial_running(self, sqlite_url: str) -> None:
        process = in_a_process(
            """
            import sys, time
            import highnoon as hn

            def objective(params):
                print("training", flush=True)
                time.sleep(60)

            hn.HPOTrialManager("digits", storage=sys.argv[1]).optimize(objective, {"x": ("uniform", 0.0, 1.0)})
            """,
            sqlite_url,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"

        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=200)

        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in errors
        assert [trial.state.name for trial in study_of(sqlite_url).trials] == ["FAIL"]


class TestCallbacks:
    def test_callbacks_get_optunas_study_and_trial(self, storage: str | None) -> None:
        seen: list[tuple[Any, ...]] = []

        def callback(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            seen.append((study.study_name, trial.number, trial.value, trial.state.name, len(study.trials)))

        hpo = hn.HPOTrialManager("digits", n_trials=3, storage=storage)
        hpo.optimize(parabola, SPACE, callbacks=[callback, callback])

        values = [trial.value for trial in hpo.trials]
        assert seen == [("digits", n, values[n], "COMPLETE", n + 1) for n in range(3) for _ in range(2)]

    def test_exception_of_a_callback_is_logged_and_the_study_goes_on(self, caplog: pytest.LogCaptureFixture) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=3)

        def callback(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            raise LookupError("mine")

        hpo.optimize(parabola, SPACE, callbacks=[callback])

        assert [trial.state for trial in hpo.trials] == ["COMPLETE"] * 3
        logged = [record for record in caplog.records if "callback_failed" in record.getMessage()]
        assert [record.getMessage().split()[2] for record in logged] == ["trial=0", "trial=1", "trial=2"]
        assert all(record.exc_info and record.exc_info[0] is LookupError for record in logged)

    def test_stopping_the_study_ends_this_call_only(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=10)

        hpo.optimize(parabola, SPACE, callbacks=[lambda study, trial: study.stop() if trial.number == 2 else None])
        assert len(hpo.trials) == 3
        hpo.optimize(parabola, SPACE, n_trials=2)
        assert len(hpo.trials) == 5

    def test_optunas_own_callback_works(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=10)

        hpo.optimize(parabola, SPACE, callbacks=[optuna.study.MaxTrialsCallback(4)])

        assert len(hpo.trials) == 4

    def test_callbacks_of_an_iterator_are_called(self) -> None:
        seen: list[int] = []
        hpo = hn.HPOTrialManager("digits", n_trials=2)

        hpo.optimize(parabola, SPACE, callbacks=(call for call in [lambda study, trial: seen.append(trial.number)]))

        assert seen == [0, 1]

    def test_a_callback_cannot_change_the_history(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=1)

        hpo.optimize(parabola, SPACE, callbacks=[lambda study, trial: trial.params.clear()])

        assert set(hpo.trials[0].params) == {"x", "kind"}


class TestJoining:
    def test_two_processes_join_one_study(self, database_url: str) -> None:
        program = """
            import sys
            import highnoon as hn

            hpo = hn.HPOTrialManager(study_name="digits", storage=sys.argv[1])
            space = {"x": ("uniform", -1.0, 1.0)}
            hpo.optimize(lambda params: params["x"] ** 2, space, n_trials=15, show_progress=False)
        """

        workers = [in_a_process(program, database_url) for _ in range(2)]
        endings = [(worker.communicate(timeout=200)[1], worker.returncode) for worker in workers]

        assert endings == [("", 0)] * 2
        hpo = hn.HPOTrialManager("digits", storage=database_url)
        assert [trial.number for trial in hpo.trials] == list(range(30))
        assert {trial.state for trial in hpo.trials} == {TrialState.COMPLETE}
        assert len({trial.params["x"] for trial in hpo.trials}) == 30

    def test_load_if_exists_false_refuses_an_existing_study(self, sqlite_url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=1, storage=sqlite_url, load_if_exists=False)
        hpo.optimize(parabola, SPACE)
        hpo.optimize(parabola, SPACE)

        with pytest.raises(StudyConflict, match="'digits' exists already, and load_if_exists=False"):
            hn.HPOTrialManager("digits", n_trials=1, storage=sqlite_url, load_if_exists=False).optimize(parabola, SPACE)
        assert len(hpo.trials) == 2

    def test_study_in_memory_that_was_read_is_still_new(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=1, load_if_exists=False)
        assert not hpo.trials
        hpo.optimize(parabola, SPACE)
        assert len(hpo.trials) == 1

    def test_manager_of_another_process_runs_trials_and_gives_results(self, sqlite_url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=2, storage=sqlite_url)
        sent = pickle.dumps(hpo)
        context = multiprocessing.get_context("fork")
        found = context.SimpleQueue()

        def search() -> None:
            found.put(hpo.optimize(parabola, SPACE))
            found.put(pickle.loads(sent).best_params)

        child = context.Process(target=search)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert found.get() == found.get() == hpo.best_params

    def test_manager_in_memory_says_where_its_results_are(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=2)
        hpo.optimize(parabola, SPACE)
        sent = pickle.loads(pickle.dumps(hpo))
        with pytest.raises(UserInputError, match="in the memory of another process"):
            _ = sent.trials
        assert sent.optimize(parabola, SPACE) and len(sent.trials) == 2

    def test_another_direction_is_a_conflict(self, sqlite_url: str) -> None:
        hn.HPOTrialManager("digits", n_trials=1, storage=sqlite_url).optimize(parabola, SPACE)

        with pytest.raises(StudyConflict, match="minimize"):
            hn.HPOTrialManager("digits", direction="maximize", storage=sqlite_url).optimize(parabola, SPACE)

    @pytest.mark.parametrize(
        "changed", [{"kind": ("uniform", 0.0, 1.0)}, {"kind": ("categorical", ["a", "c"])}, {"x": ("int", 0, 3)}]
    )
    def test_another_kind_or_other_choices_are_a_conflict(self, sqlite_url: str, changed: dict[str, Any]) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=1, storage=sqlite_url)
        hpo.optimize(parabola, SPACE)

        with pytest.raises(StudyConflict, match=next(iter(changed))):
            hn.HPOTrialManager("digits", n_trials=1, storage=sqlite_url).optimize(parabola, {**SPACE, **changed})
        assert len(hpo.trials) == 1

    def test_other_bounds_and_other_parameters_join(self, sqlite_url: str) -> None:
        hn.HPOTrialManager("digits", n_trials=3, storage=sqlite_url).optimize(parabola, SPACE)
        hpo = hn.HPOTrialManager("digits", n_trials=12, storage=sqlite_url)

        with pytest.raises(StudyConflict, match=r"new is new and has no default for earlier trials"):
            hpo.optimize(parabola, {"x": ("uniform", -0.1, 0.1), "new": ("int", 1, 3)})
        hpo.optimize(parabola, {"x": ("uniform", -0.1, 0.1), "new": hn.Int(1, 3, default=1)})

        assert len(hpo.trials) == 15
        assert all(abs(trial.params["x"]) <= 0.1 and "kind" not in trial.params for trial in hpo.trials[3:])

    def test_reading_a_missing_study_raises_unknown_study(self, sqlite_url: str) -> None:
        with pytest.raises(UnknownStudy, match="digits"):
            hn.HPOTrialManager("digits", storage=sqlite_url).best_value  # noqa: B018


class TestGrid:
    ALL: ClassVar = sorted(itertools.product(range(3), "ab"))

    @staticmethod
    def points(hpo: hn.HPOTrialManager) -> list[tuple[Any, ...]]:
        return [(trial.params["x"], trial.params["kind"]) for trial in hpo.trials]

    def test_grid_visits_every_point_once(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=50, sampler="grid", storage=storage)

        assert hpo.optimize(parabola, GRID)["x"] == 0
        assert sorted(self.points(hpo)) == self.ALL
        assert hpo.optimize(parabola, GRID)["x"] == 0
        assert len(hpo.trials) == 6

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_one_process_visits_points_in_the_order_of_the_grid_and_of_the_seed(self, n_jobs: int) -> None:
        def visited(sampler: str, seed: int) -> list[tuple[Any, ...]]:
            hpo = hn.HPOTrialManager("digits", n_trials=6, sampler=sampler, seed=seed)
            hpo.optimize(parabola, GRID, n_jobs=n_jobs)
            return self.points(hpo)

        assert visited("grid", 1) == [(x, kind) for kind in "ab" for x in range(3)]
        assert visited("brute_force", 1) == visited("brute_force", 1) != visited("brute_force", 2)

    def test_resumed_grid_visits_remaining_and_interrupted_points(self, sqlite_url: str) -> None:
        hpo = hn.HPOTrialManager("digits", sampler="grid", storage=sqlite_url)
        hpo.optimize(parabola, GRID, n_trials=2)

        def interrupted(params: dict[str, Any]) -> float:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            hpo.optimize(interrupted, GRID)
        hn.HPOTrialManager("digits", sampler="grid", storage=sqlite_url).optimize(parabola, GRID)

        complete = [
            point for point, trial in zip(self.points(hpo), hpo.trials, strict=True) if trial.state == "COMPLETE"
        ]
        assert len(hpo.trials) == 7
        assert sorted(complete) == self.ALL

    def test_two_processes_share_a_grid(self, sqlite_url: str) -> None:
        program = """
            import sys, time
            import highnoon as hn

            def objective(params):
                time.sleep(0.02)
                return float(params["x"])

            hpo = hn.HPOTrialManager(study_name="digits", sampler="grid", storage=sys.argv[1])
            hpo.optimize(objective, {"x": ("int", 0, 29)}, show_progress=False)
        """

        workers = [in_a_process(program, sqlite_url) for _ in range(2)]
        endings = [(worker.communicate(timeout=200)[1], worker.returncode) for worker in workers]

        assert endings == [("", 0)] * 2
        visits = Counter(trial.params["x"] for trial in study_of(sqlite_url).trials)
        assert visits == dict.fromkeys(range(30), 1)


class TestOutage:
    """The database goes away in the middle of a trial and comes back: nothing is lost, nothing stops."""

    def test_reports_and_endings_wait_for_the_database(self, stack: Stack, postgres_url: str, caplog: Any) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=1, storage=postgres_url)
        name = postgres_url.rsplit("/", 1)[1]
        admin = psycopg2.connect(stack.database_url.replace("+psycopg2", "", 1))
        admin.autocommit = True
        cursor = admin.cursor()

        def objective(params: dict[str, Any]) -> float:
            hn.report(0.9, 0)
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            hn.report(0.8, 1)
            assert hn.should_prune() is False
            hn.report(0.7, 2)
            threading.Timer(0.5, cursor.execute, [f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"]).start()
            return 0.6

        hpo.optimize(objective, SPACE)

        (trial,) = hpo.trials
        assert (trial.state, trial.value) == ("COMPLETE", 0.6)
        assert [(report.step, report.value) for report in trial.reports] == [(0, 0.9), (1, 0.8), (2, 0.7)]
        assert caplog.text.count("action=database_away") == 3
        assert "action=waiting_for_database" in caplog.text
        admin.close()

    @pytest.mark.parametrize("database", ["postgresql", "mysql"])
    def test_unreachable_database_is_reported_at_once(self, database: str) -> None:
        hpo = hn.HPOTrialManager("digits", storage=f"{database}://me:secret@127.0.0.1:9/db")

        with pytest.raises(ServiceUnavailable) as caught:
            hpo.optimize(parabola, SPACE)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("arguments", "lines"), [("show_progress=False", 0), ("", 2)])
def test_a_line_for_each_trial_unless_it_is_not_wanted(tmp_path: Path, arguments: str, lines: int) -> None:
    program = f"""
        import highnoon as hn

        hpo = hn.HPOTrialManager("digits", n_trials=2)
        hpo.optimize(lambda params: 0.0, {{"x": ("uniform", 0.0, 1.0)}}, {arguments})
    """

    done = in_a_process(program, cwd=tmp_path, env={**os.environ})
    output, errors = done.communicate(timeout=200)

    assert (output, done.returncode) == ("", 0)
    assert [line.startswith("action=trial study=digits trial=") for line in errors.splitlines()] == [True] * lines
    assert eventually(lambda: list(tmp_path.iterdir()) == [], what="nothing was written")
