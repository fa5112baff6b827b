"""What `HPOTrialManager` owes to trials on one machine: processes of their own, and no trial left behind by any end."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

import highnoon as hn
from highnoon.coordinator.cli import tables
from highnoon.local import process
from highnoon.shared.domain.errors import EveryTrialFailed, InvalidInput, MissingExtra
from highnoon.shared.runtime.terminal import open_console
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.views.trial_export import csv_head, csv_rows
from highnoon.shared.views.trials import metric_names
from tests.support import eventually

SPACE = {"x": ("uniform", -1.0, 1.0)}
GRID = {"x": ("int", 0, 5)}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/hpo.db"


def study_of(url: str) -> optuna.Study:
    return optuna.load_study(study_name="digits", storage=url)


def program(text: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestProcesses:
    @pytest.mark.parametrize("storage", ["memory", "sqlite"])
    def test_closures_run_in_processes_of_their_own_side_by_side(
        self, storage: str, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Another test of this process may have run TensorFlow, which these trials do not use.
        monkeypatch.setattr(process, "_cannot_be_forked", lambda: False)
        hpo = hn.HPOTrialManager("digits", n_trials=4, storage=url if storage == "sqlite" else None, sampler="grid")
        lock = threading.Lock()  # what no pickle can hold

        def objective(params: dict[str, Any]) -> float:
            with lock:
                (tmp_path / f"{os.getpid()}").touch()
            others = eventually(lambda: len(list(tmp_path.glob("[0-9]*"))) >= 2, what="another trial runs meanwhile")
            assert others
            hn.report(0.5, 0)
            return float(params["x"])

        best = hpo.optimize(objective, {"x": ("int", 1, 4)}, n_jobs=2)

        assert best == {"x": 1}
        assert [trial.state for trial in hpo.trials] == ["COMPLETE"] * 4
        assert all(trial.reports[0].value == 0.5 and trial.duration_s for trial in hpo.trials)
        assert len(list(tmp_path.glob("[0-9]*"))) == 4
        assert not (tmp_path / str(os.getpid())).exists()

    @pytest.mark.parametrize(("name", "new"), [("OMP_NUM_THREADS", True), ("DATA", False)])
    def test_a_study_has_an_environment(self, name: str, new: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(process, "_cannot_be_forked", lambda: False)
        monkeypatch.delenv(name, raising=False)
        hpo = hn.HPOTrialManager("environment", n_trials=1, environment={name: "1"})

        def objective(params: dict[str, Any]) -> dict[str, float]:
            return {"loss": float(os.environ[name]), "new": float("pytest" not in sys.modules)}

        hpo.optimize(objective, SPACE)

        assert hpo.best_value == 1.0 and hpo.best_trial.metrics == {"new": float(new)}
        assert name not in os.environ

    def test_a_new_interpreter_gets_closures_and_the_manager_itself(self, url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=2, storage=url, isolation="spawn", seed=1)
        parent = os.getpid()

        def objective(params: dict[str, Any]) -> float:
            import random

            hpo.report(0.5, 0)
            assert os.getpid() != parent
            assert not hpo.should_prune()
            return random.random()

        hpo.optimize(objective, SPACE)

        values = [trial.value for trial in hpo.trials]
        assert [trial.state for trial in hpo.trials] == ["COMPLETE"] * 2
        assert len(set(values)) == 2

    def test_what_cannot_be_sent_is_refused_before_any_trial(self, url: str) -> None:
        lock = threading.Lock()
        hpo = hn.HPOTrialManager("digits", storage=url, isolation="spawn")
        with pytest.raises(InvalidInput, match=r"objective: cannot be sent to a process of its own .*Create what it"):
            hpo.optimize(lambda params: float(lock.locked()), SPACE)
        assert hpo.trials == []

    def test_a_process_that_dies_is_a_failed_trial_and_the_next_ones_run(self, url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=3, storage=url, isolation="fork", sampler="grid")

        def objective(params: dict[str, Any]) -> float:
            if params["x"] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            if params["x"] == 1:
                os._exit(7)
            # A child that holds the pipe open and outlives its parent
            subprocess.Popen(["sleep", "3617"], close_fds=False)
            return 1.0

        hpo.optimize(objective, {"x": ("int", 0, 2)})

        ended = {trial.params["x"]: (trial.state, trial.attrs.get("highnoon:message", "")) for trial in hpo.trials}
        assert ended[0][0] == ended[1][0] == "FAIL" and ended[2][0] == "COMPLETE"
        assert "killed by SIGKILL" in ended[0][1] and "memory runs out" in ended[0][1]
        assert "exited with status 7" in ended[1][1]
        assert subprocess.run(["pgrep", "-f", "sleep 3617"], check=False).returncode == 1

    def test_pruners_decide_for_processes_too(self) -> None:
        hpo = hn.HPOTrialManager(
            "digits", n_trials=12, sampler="random", seed=2, pruner={"name": "median", "n_startup_trials": 2}
        )

        def objective(params: dict[str, Any]) -> float:
            for epoch in range(5):
                hn.report(params["x"], epoch)
                if hn.should_prune():
                    raise hn.TrialPruned
            return float(params["x"])

        hpo.optimize(objective, SPACE, n_jobs=2)

        assert Counter(str(trial.state) for trial in hpo.trials).keys() == {"COMPLETE", "PRUNED"}

    @pytest.mark.parametrize("isolation", ["none", "fork", "spawn"])
    def test_an_objective_that_defines_its_space_runs_in_every_isolation(self, url: str, isolation: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=3, storage=url, isolation=isolation, seed=1)

        def objective(trial: optuna.Trial) -> float:
            kind = trial.suggest_categorical("kind", ["a", "b"])
            trial.set_user_attr("seen", kind)
            with pytest.raises(ValueError):
                trial.suggest_float("y", 2.0, 1.0)
            return trial.suggest_float("x", 0.0, 1.0)

        hpo.optimize(objective)

        assert [trial.state for trial in hpo.trials] == ["COMPLETE"] * 3
        assert all(set(trial.params) == {"x", "kind"} for trial in hpo.trials)
        assert all(trial.attrs["seen"] == trial.params["kind"] for trial in hpo.trials)

    def test_module_that_optimizes_when_it_is_imported_starts_no_trials_of_its_trials(self, tmp_path: Path) -> None:
        text = """
            import os
            import highnoon as hn

            def objective(params):
                inner = hn.HPOTrialManager("inner", n_trials=2)  # a study of a trial's own is none of the import's
                inner.optimize(lambda point: point["x"], SPACE)
                return float(len(inner.trials))

            SPACE = {"x": ("uniform", 0.0, 1.0)}
            os.environ["IMPORTS"] = str(int(os.environ.get("IMPORTS", 0)) + 1)
            if int(os.environ["IMPORTS"]) <= 3:
                hn.HPOTrialManager("outer", n_trials=1, isolation="spawn").optimize(objective, SPACE)
        """
        (tmp_path / "tune.py").write_text(textwrap.dedent(text))
        run = program("import sys; sys.path.insert(0, sys.argv[1]); import tune", str(tmp_path))
        _, shown = run.communicate(timeout=60)
        assert run.returncode == 1
        assert "Guard the call with: if __name__ == '__main__':" in shown

        guarded = text.replace('if int(os.environ["IMPORTS"]) <= 3:', 'if os.environ["IMPORTS"] == "1":')
        (tmp_path / "tune.py").write_text(textwrap.dedent(guarded))
        run = program("import sys; sys.path.insert(0, sys.argv[1]); import tune", str(tmp_path))
        _, shown = run.communicate(timeout=60)
        assert run.returncode == 0 and "state=COMPLETE value=2" in shown

    def test_results_are_read_where_optimize_was_called(self, url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=1, storage=url, isolation="fork")
        with pytest.raises(EveryTrialFailed, match="Read them where optimize"):
            hpo.optimize(lambda params: float(len(hpo.trials)), SPACE)

    def test_after_tensorflow_has_run_here_trials_get_new_interpreters(self) -> None:
        text = """
            import os, sys
            import highnoon as hn
            from highnoon.local import process
            process.tensorflow_has_run = lambda: True

            def objective(params):
                assert sys.argv == ["-c"], sys.argv
                assert os.getppid() == parent
                return params["x"]

            if __name__ == "__main__":
                parent = os.getpid()
                hpo = hn.HPOTrialManager("digits", n_trials=2)
                hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)}, n_jobs=2)
                print([str(trial.state) for trial in hpo.trials])
        """
        output, errors = program(text).communicate(timeout=200)
        assert output == "['COMPLETE', 'COMPLETE']\n", errors


class TestEnds:
    FOREVER = """
        import sys, time
        import highnoon as hn

        def objective(params):
            if params["x"] < 2:
                return 1.0
            print("training", flush=True)
            time.sleep(60)

        hpo = hn.HPOTrialManager("digits", storage=sys.argv[1], sampler="grid", isolation=sys.argv[2])
        hpo.optimize(objective, {"x": ("int", 0, 5)})
    """

    @pytest.mark.parametrize("isolation", ["none", "fork"])
    def test_the_next_call_ends_what_a_killed_one_left_and_runs_what_is_missing(
        self, url: str, isolation: str, caplog: Any
    ) -> None:
        killed = program(self.FOREVER, url, isolation)
        assert killed.stdout is not None and killed.stdout.readline() == "training\n"
        # Then one that lives is left alone
        hpo = hn.HPOTrialManager("digits", storage=url, sampler="grid")
        hpo.optimize(lambda params: 0.0, GRID, n_trials=1)
        assert [trial.state.name for trial in study_of(url).trials].count("RUNNING") == 1
        killed.kill()
        killed.communicate()

        hpo.optimize(lambda params: 1.0, GRID)

        trials = study_of(url).trials
        states = Counter(trial.state.name for trial in trials)
        (failed,) = [trial for trial in trials if trial.state.name == "FAIL"]
        assert states == {"COMPLETE": 6, "FAIL": 1}
        assert f"its process {killed.pid} on" in failed.user_attrs["highnoon:message"]
        assert sorted(trial.params["x"] for trial in trials if trial.state.name == "COMPLETE") == list(range(6))
        assert f"action=abandoned study=digits trial={failed.number}" in caplog.text

    @pytest.mark.parametrize("isolation", ["none", "fork"])
    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def test_sigterm_and_ctrl_c_end_the_trial_and_the_program(self, url: str, isolation: str, signum: int) -> None:
        ended = program(self.FOREVER, url, isolation)
        assert ended.stdout is not None and ended.stdout.readline() == "training\n"
        ended.send_signal(signum)
        _, errors = ended.communicate(timeout=200)

        assert ended.returncode == (143 if signum == signal.SIGTERM else -signal.SIGINT), errors
        trials = study_of(url).trials
        assert [trial.state.name for trial in trials if trial.state.name != "COMPLETE"] == ["FAIL"]
        words = {trial.user_attrs.get("highnoon:message") for trial in trials}
        assert ("interrupted by SIGTERM" if signum == signal.SIGTERM else "interrupted by Ctrl-C") in words

    def test_the_next_call_ends_what_an_interrupted_one_of_this_process_could_not_record(self, url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=1, storage=url, sampler="grid")
        database = url.removeprefix("sqlite:///")

        def objective(params: dict[str, Any]) -> float:
            with closing(sqlite3.connect(database)) as connection:
                connection.execute(
                    "CREATE TRIGGER away BEFORE UPDATE ON trials BEGIN SELECT RAISE(ABORT, 'not now'); END"
                )
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            hpo.optimize(objective, GRID)
        assert [trial.state.name for trial in study_of(url).trials] == ["RUNNING"]
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("DROP TRIGGER away")

        def inner(params: dict[str, Any]) -> float:
            # Nor does a call within the running one end its trial
            hn.HPOTrialManager("digits", storage=url, sampler="grid").optimize(lambda params: 1.0, GRID, n_trials=1)
            return 1.0

        hpo.optimize(inner, GRID)

        lost, *others = study_of(url).trials
        assert [trial.state.name for trial in others] == ["COMPLETE"] * 2
        assert lost.state.name == "FAIL"
        assert lost.user_attrs["highnoon:message"].startswith("its call of optimize was interrupted")

    def test_timeout_starts_no_further_trial(self, url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=1000, storage=url)

        def objective(params: dict[str, Any]) -> float:
            threading.Event().wait(0.3)
            return 1.0

        hpo.optimize(objective, SPACE, timeout=0.5)
        assert 1 <= len(hpo.trials) <= 3


class TestFaultsOfTheObjective:
    @pytest.mark.parametrize("storage", ["sqlite", "postgres"])
    @pytest.mark.parametrize("isolation", ["none", "fork"])
    def test_a_step_beyond_the_tables_fails_its_trial_in_plain_words(
        self, request: pytest.FixtureRequest, url: str, storage: str, isolation: str
    ) -> None:
        where = url if storage == "sqlite" else str(request.getfixturevalue("postgres_url"))
        hpo = hn.HPOTrialManager("digits", storage=where, sampler="grid", isolation=isolation)
        steps = [2_000_000_000, 3_000_000_000, 2**40, 2**70]

        def objective(params: dict[str, Any]) -> float:
            hn.report(1.0, params["step"] if params["step"] < 3 else steps[params["step"]])
            return float(hn.should_prune())

        hpo.optimize(objective, {"step": ("int", 0, 3)})

        assert Counter(str(trial.state) for trial in hpo.trials) == {"COMPLETE": 3, "FAIL": 1}
        (failed,) = [trial for trial in hpo.trials if trial.state == "FAIL"]
        message = failed.attrs["highnoon:message"]
        assert "step: must be at most 2147483647, not 1180591620717411303424" in message
        assert "sqlalchemy" not in failed.attrs["highnoon:traceback"].lower()

    @pytest.mark.parametrize("isolation", ["none", "fork"])
    @pytest.mark.parametrize("table", ["trial_intermediate_values", "trial_values"])
    def test_what_the_database_refuses_fails_the_trial_without_its_statement(
        self, url: str, isolation: str, table: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="highnoon")
        hpo = hn.HPOTrialManager("digits", n_trials=2, storage=url, isolation=isolation)

        def objective(params: dict[str, Any]) -> float:
            hn.report(1.0, 0)
            return 1.0

        def drop(study: optuna.Study, trial: Any) -> None:
            if trial.number:
                return
            with hpo._connected()._database.engine.begin() as connection:  # type: ignore[union-attr]
                connection.exec_driver_sql(
                    f"CREATE TRIGGER no BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no number is taken'); END"
                )

        hpo.optimize(objective, SPACE, callbacks=[drop])

        assert [trial.state for trial in hpo.trials] == ["COMPLETE", "FAIL"]
        attrs = hpo.trials[1].attrs
        assert "no number is taken" in attrs["highnoon:message"]
        assert "INSERT" not in attrs["highnoon:message"] + attrs.get("highnoon:traceback", "")
        (line,) = [text for text in caplog.messages if "trial=1 state=FAIL" in text]
        assert " seconds=" in line

    def test_five_failures_before_the_first_success_end_the_call(self) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=100)

        def objective(params: dict[str, Any]) -> float:
            raise ValueError("no data" if params["x"] < 2 else "no labels")

        with pytest.raises(EveryTrialFailed) as caught:
            hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})

        assert len(hpo.trials) == 5
        lines = str(caught.value).splitlines()
        assert lines[0] == "all 5 trials failed; 5 failures in a row end it (max_failures_in_a_row; 0 = never)"
        assert lines[1] == "  5 x ValueError: no data"
        assert lines[2].strip().startswith(f"{__file__}:") and lines[2].endswith("in objective")
        assert lines[3].strip() == 'raise ValueError("no data" if params["x"] < 2 else "no labels")'
        assert len(lines) == 4

    @pytest.mark.parametrize(("most", "trials"), [(0, 8), (3, 4), (None, 8)])
    def test_max_failures_in_a_row(self, most: int | None, trials: int) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=8, max_failures_in_a_row=most)

        def objective(params: dict[str, Any]) -> float:
            if len(hpo.trials) > 1:
                raise ValueError("after the first")
            return 1.0

        hpo.optimize(objective, SPACE)
        assert len(hpo.trials) == trials

    @pytest.mark.parametrize(
        ("objective", "words"),
        [
            (lambda: 1.0, "cannot be called with one argument"),
            (lambda a, b: 1.0, "missing a required argument: 'b'"),
            (lambda params, *, key: 1.0, "missing a required"),
            ("train.py:objective", "must be callable"),
        ],
    )
    def test_wrong_arity_is_refused_before_any_trial(self, objective: Any, words: str) -> None:
        hpo = hn.HPOTrialManager("digits")
        with pytest.raises(InvalidInput, match=words):
            hpo.optimize(objective, SPACE)
        assert hpo.trials == []

    def test_an_async_objective_is_refused(self) -> None:
        async def objective(params: dict[str, Any]) -> float:
            return 1.0

        with pytest.raises(InvalidInput, match=r"is an async function .*Write def objective\(params\) without async"):
            hn.HPOTrialManager("digits").optimize(objective, SPACE)


class TestTwoManagers:
    """They add to one study at the same time: both choose a point before either has started its trial."""

    @pytest.mark.parametrize("storage", ["memory", "sqlite"])
    @pytest.mark.parametrize(("sampler", "seed"), [("tpe", 1), ("qmc", None), ("grid", None)])
    def test_no_point_is_tried_twice(
        self, sampler: str, seed: int | None, storage: str, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = OptunaStore(url if storage == "sqlite" else None)
        monkeypatch.setattr(hn.HPOTrialManager, "_connected", lambda manager: store)
        managers = [hn.HPOTrialManager("digits", 3, storage=url, sampler=sampler, seed=seed) for _ in range(2)]
        choose, both, this_thread = OptunaStudy.choose, threading.Barrier(2), threading.local()

        def chosen(study: OptunaStudy, **arguments: Any) -> Any:
            new = choose(study, **arguments)
            if not hasattr(this_thread, "has_met"):
                this_thread.has_met = both.wait(20.0)
            return new

        monkeypatch.setattr(OptunaStudy, "choose", chosen)
        with ThreadPoolExecutor() as threads:
            space = GRID if sampler == "grid" else SPACE
            for run in [threads.submit(one.optimize, lambda params: params["x"], space) for one in managers]:
                run.result()

        trials = managers[0].trials
        assert len(trials) == len({trial.params["x"] for trial in trials}) == 6

    @pytest.mark.parametrize(("sampler", "chosen"), [("tpe", 4), ("random", 4), ("qmc", 6)])
    def test_a_busy_study_does_not_keep_a_sampler_choosing(
        self, sampler: str, chosen: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = OptunaStore(None)
        monkeypatch.setattr(hn.HPOTrialManager, "_connected", lambda manager: store)
        manager = hn.HPOTrialManager("digits", 1, sampler=sampler, seed=1)
        choose, points = OptunaStudy.choose, []

        def beaten(study: OptunaStudy, **arguments: Any) -> Any:
            points.append(choose(study, **arguments))
            if len(points) <= 5:
                study.optuna_study.add_trial(optuna.create_trial(value=0.0))
            return points[-1]

        monkeypatch.setattr(OptunaStudy, "choose", beaten)
        manager.optimize(lambda params: params["x"], SPACE)

        assert len(points) == chosen == len({point.params["x"] for point in points})


class TestTheManager:
    def test_enqueued_points_are_first_and_are_checked(self, url: str) -> None:
        hpo = hn.HPOTrialManager("digits", n_trials=2, storage=url)
        hpo.enqueue({"x": 0.25})
        hpo.optimize(lambda params: params["x"], SPACE)
        assert hpo.trials[0].params == {"x": 0.25}

        hpo.enqueue({"x": 0.5})
        with pytest.raises(InvalidInput, match="is outside of"):
            hpo.enqueue({"x": 7.0})
        with pytest.raises(InvalidInput, match=r"y: is no parameter of this study\. Valid: x"):
            hpo.enqueue({"y": 7.0})
        with pytest.raises(InvalidInput, match="must be a dict"):
            hpo.enqueue([7.0])  # type: ignore[arg-type]
        hpo.optimize(lambda params: params["x"], SPACE, n_trials=1)
        assert hpo.trials[2].params == {"x": 0.5}

    def test_repr_says_what_and_how_far(self, tmp_path: Path) -> None:
        hpo = hn.HPOTrialManager("digits", 3, storage="postgresql://me:secret@nowhere/db")
        assert repr(hpo) == (
            "HPOTrialManager('digits', minimize, in postgresql://me:***@nowhere/db, 3 trials asked for)"
        )
        hpo = hn.HPOTrialManager("digits", 3)
        hpo.optimize(lambda params: 0.5, SPACE)
        assert repr(hpo) == "HPOTrialManager('digits', minimize, in memory, 3 complete, best 0.5 of trial 0)"

    @pytest.mark.parametrize("isolation", ["none", "fork"])
    def test_metrics_are_attributes_of_optunas_trials_and_columns(self, url: str, isolation: str) -> None:
        hpo = hn.HPOTrialManager("digits", 2, storage=url, isolation=isolation)

        def objective(params: dict[str, Any]) -> dict[str, float]:
            hn.log(accuracy=0.5)
            return {"loss": 1.0, "f1": 0.25}

        hpo.optimize(objective, SPACE)

        assert hpo.trials[0].metrics == {"accuracy": 0.5, "f1": 0.25}
        (attrs, _) = [trial.user_attrs for trial in study_of(url).trials]
        assert (attrs["accuracy"], attrs["f1"]) == (0.5, 0.25)
        head = csv_head(["x"], metrics=metric_names(hpo.trials))
        assert head.strip().endswith("params.x,metrics.accuracy,metrics.f1")
        assert csv_rows(hpo.trials[:1], ["x"], {}, metrics=["accuracy", "f1"]).strip().endswith(",0.5,0.25")
        assert tables.trials_table(hpo.trials, {}, open_console())[0].split() == [
            *("trial", "state", "value", "took", "accuracy", "f1", "parameters")
        ]

    def test_study_is_optunas_own(self, url: str) -> None:
        hpo = hn.HPOTrialManager("digits", 3, storage=url)
        hpo.optimize(lambda params: 0.5, SPACE)
        assert isinstance(hpo.study, optuna.Study) and len(hpo.study.trials) == 3

    def test_trials_dataframe_needs_pandas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hpo = hn.HPOTrialManager("digits", 3)
        hpo.optimize(lambda params: 0.5, SPACE)
        monkeypatch.setitem(sys.modules, "pandas", None)
        monkeypatch.setattr("highnoon.shared.store.study_reader.find_spec", lambda name: None)
        with pytest.raises(MissingExtra, match="pip install pandas"):
            hpo.trials_dataframe()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"n_jobs": 0}, r"n_jobs: must be an integer of at least 1, or -1 \(got 0\)"),
            ({"n_jobs": True}, "n_jobs"),
            ({"timeout": -1}, "timeout: must be above 0"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidInput, match=words):
            hn.HPOTrialManager("digits").optimize(lambda params: 0.5, SPACE, **arguments)

    def test_several_jobs_need_processes(self) -> None:
        with pytest.raises(InvalidInput, match='needs processes, and isolation is "none"'):
            hn.HPOTrialManager("digits", isolation="none").optimize(lambda params: 0.5, SPACE, n_jobs=2)
        with pytest.raises(InvalidInput, match=r"isolation.*got 'thread'"):
            hn.HPOTrialManager("digits", isolation="thread")


def test_a_rehearsal_never_touches_the_study(url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    hn.HPOTrialManager("digits", 3, storage=url).optimize(lambda params: 0.5, SPACE)
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")

    hpo = hn.HPOTrialManager("digits", 9, direction="maximize", storage=url, load_if_exists=False)
    hpo.optimize(lambda params: 0.25, SPACE)

    assert len(hpo.trials) == 2 and hpo.best_value == 0.25
    assert "REHEARSAL: study digits is kept in memory" in caplog.text
    assert [trial.value for trial in study_of(url).trials] == [0.5] * 3


def test_a_rehearsal_does_not_look_for_the_studies_of_a_warm_start(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hn.HPOTrialManager("first", 1, storage=url).optimize(lambda params: 0.5, SPACE)
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")

    hpo = hn.HPOTrialManager("second", storage=url, warm_start=["first"])
    hpo.optimize(lambda params: 0.25, SPACE)

    assert len(hpo.trials) == 2
