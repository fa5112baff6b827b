"""Studies handed to a cluster from Python: scripts, notebooks, files; and the handle that watches and steers them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import optuna
import pytest

import highnoon as hn
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.errors import (
    InvalidInput,
    NoCompletedTrial,
    ServiceUnavailable,
    StudyConflict,
    UnknownStudy,
    UserInputError,
)
from tests import objectives
from tests.cluster import Cluster, running_cluster
from tests.support import eventually

SPACE = {"x": ("uniform", -5.0, 5.0)}
KEY = {"HIGHNOON_CLUSTER_KEY": "a-key-of-these-tests-alone"}


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(stack, tmp_path_factory.mktemp("submit"), KEY) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _settings_of_the_cluster(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGHNOON_DATABASE_URL", cluster.database_url)
    monkeypatch.setenv("HIGHNOON_CLUSTER_KEY", KEY["HIGHNOON_CLUSTER_KEY"])
    monkeypatch.chdir(tmp_path)


def script(folder: Path, **sources: str) -> subprocess.CompletedProcess[str]:
    """Runs the one named `run` among these modules of a folder."""
    for name, source in sources.items():
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
    return subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=240)


def test_a_function_of_the_script_travels_with_the_modules_beside_it(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        run="""
            import highnoon as hn
            from helpers import shifted

            WIDTH = 2

            def objective(params):
                hn.report(1.0, 0)
                print("from the script's source")
                return shifted(params["x"]) * WIDTH

            handle = hn.submit(objective, {"x": ("int", 0, 3)}, name="from-a-script", n_trials=4, sampler="grid")
            print(handle.wait().best_params, handle.best_value, handle.logs(0), end="")
        """,
        helpers="from package.part import SHIFT\ndef shifted(value): return value + SHIFT",
        **{"package.__init__": "", "package.part": "SHIFT = 10"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'x': 0} 20.0 from the script's source\n"
    lines = done.stderr.splitlines()
    assert [line.startswith("action=trial study=from-a-script trial=") for line in lines] == [True] * 4


def test_a_function_of_a_notebook_travels_by_the_source_of_its_cells(tmp_path: Path) -> None:
    """As IPython keeps cells in `In`; the notebook itself is run by hand, since its packages are not installed here."""
    done = script(
        tmp_path,
        run="""
            import sys, types
            In = [
                "",
                "%matplotlib inline\\nimport highnoon as hn\\nscale = 3",
                "def objective(params):\\n    return undefined",
                "def objective(params):\\n    return params['x'] * scale",
                "this was (no Python",
            ]
            transform = lambda cell: cell.replace("%matplotlib inline", "get_ipython().run_line_magic('matplotlib')")
            shell = types.SimpleNamespace(input_transformer_manager=types.SimpleNamespace(transform_cell=transform))
            get_ipython = lambda: shell
            import highnoon as hn
            scale = 3
            exec(In[3], globals())
            handle = hn.submit(objective, {"x": ("int", 1, 2)}, name="cells", n_trials=2, sampler="grid")
            print(handle.wait().best_value)
        """,
    )
    assert (done.stdout, done.returncode) == ("3.0\n", 0), done.stderr


def test_a_function_of_a_module_goes_by_its_name_and_the_handle_reads_everything(cluster: Cluster, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="highnoon")
    handle = hn.submit(objectives.good, SPACE, name="by-name", n_trials=3, sampler="random", seed=1)

    assert handle.wait(timeout=120) is handle

    assert handle.status == "finished" and handle.summary.complete == 3
    assert [trial.state for trial in handle.trials] == ["COMPLETE"] * 3
    assert handle.best_value == min(trial.value for trial in handle.trials if trial.value is not None)
    assert handle.best_params == handle.best_trial.params
    assert isinstance(handle.study, optuna.Study)
    assert repr(handle).startswith("StudyHandle('by-name', finished, 3 of 3  best ")
    assert "<table>" in handle._repr_html_() and "<th>x</th>" in handle._repr_html_()
    assert caplog.text.count("action=trial study=by-name") == 3
    assert "by-name" in [one.name for one in hn.studies()]
    assert hn.study("by-name").best_params == handle.best_params
    with pytest.raises(UserInputError, match="has no trial with a known size"):
        handle.pareto_front()
    with pytest.raises(UserInputError, match="has the trial number 99"):
        handle.logs(99)
    with pytest.raises(UnknownStudy, match=r"Did you mean by-name\?"):
        hn.study("by-nam")


def test_steering(cluster: Cluster) -> None:
    handle = hn.submit(objectives.good, SPACE, name="steered", n_trials=1, sampler="random")
    handle.wait(progress=False)
    assert handle.add_trials(1) == 1
    handle.enqueue({"x": 0.25})
    with pytest.raises(InvalidInput, match="y: is no parameter"):
        handle.enqueue({"y": 1})
    with pytest.raises(InvalidInput, match="count: must be from 1"):
        handle.add_trials(0)
    seen: list[int] = []
    handle.follow(lambda study, trial: seen.append(trial.number))
    assert sorted(seen) == [0, 1, 2]
    assert {"x": 0.25} in [trial.params for trial in handle.trials]
    with pytest.raises(StudyConflict, match="it is over already"):
        handle.stop()

    slow = hn.submit(objectives.slow, SPACE, name="slow", n_trials=50)
    with pytest.raises(NoCompletedTrial, match="no completed trial yet"):
        slow.best_trial  # noqa: B018
    slow.pause()
    assert slow.status == "paused"
    slow.resume()
    with pytest.raises(TimeoutError, match="is not over after 0 seconds; it goes on"):
        slow.wait(timeout=0)
    slow.stop()
    assert eventually(lambda: slow.status == "cancelled", 60.0, what="the study is cancelled")


def test_one_trial_is_stopped_and_described(cluster: Cluster) -> None:
    handle = hn.submit(objectives.hangs, SPACE, name="hangs", n_trials=1)
    assert eventually(lambda: [trial.state for trial in handle.trials] == ["RUNNING"], 30.0, what="it runs")
    with pytest.raises(StudyConflict, match="trial 99 of study hangs does not run now; these run: 0"):
        handle.stop_trial(99)
    handle.stop_trial(0)
    handle.wait(progress=False, timeout=60)
    assert [trial.state for trial in handle.trials] == ["FAIL"]
    assert handle.note("it hung", trial=0, tag="odd").tags == ("odd",)
    assert handle.note(trial=0).text == "it hung" and not handle.note()


def test_a_study_file_and_a_bundle(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("def objective(params): return params['x'] ** 2")
    (tmp_path / "study.toml").write_text(
        'name = "from-a-file"\nobjective = "train.py:objective"\nn_trials = 9\n[search_space]\nx = ["int", 1, 9]\n'
    )
    handle = hn.submit(tmp_path / "study.toml", n_trials=2, bundle=tmp_path)
    assert handle.wait(progress=False).summary.complete == 2
    assert hn.submit("study.toml", n_trials=3).wait(progress=False).summary.complete == 3


def test_mistakes_are_reported_at_once(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput) as caught:
        hn.submit(objectives.good, {"x": ("unifrom", 0, 1)}, name="a/b", n_trial=3)
    assert {problem.key for problem in caught.value.problems} == {"name", "n_trial", "search_space.x"}
    with pytest.raises(InvalidInput, match="is not a function at the top level"):
        hn.submit(lambda params: 1.0, SPACE, name="x")
    with pytest.raises(InvalidInput, match="cannot be called with one argument"):
        hn.submit(lambda: 1.0, SPACE, name="x")  # type: ignore[misc,arg-type]
    with pytest.raises(InvalidInput, match="bundle: is no folder"):
        hn.submit(objectives.good, SPACE, name="x", bundle=tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"cluster: there is no folder /.*/nowhere \(got 'nowhere'\)"):
        hn.submit(objectives.good, SPACE, name="x", cluster="nowhere")
    monkeypatch.delenv("HIGHNOON_DATABASE_URL")
    with pytest.raises(ServiceUnavailable, match=r"no coordinator runs in .*python -m coordinator start runs one"):
        hn.submit(objectives.good, SPACE, name="x", cluster=tmp_path)
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")
    with pytest.raises(UserInputError, match="a rehearsal stores nothing"):
        hn.submit(objectives.good, SPACE, name="x")


def test_submitting_within_a_trial_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HIGHNOON_TICKET", "1")
    with pytest.raises(UserInputError, match="Guard the call"):
        hn.submit(objectives.good, SPACE, name="x")
