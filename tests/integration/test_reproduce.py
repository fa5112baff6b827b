"""The environment of each attempt, and `coordinator reproduce`: a trial once more, and what is another thing now."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from highnoon.coordinator.cli.reproduce import _lines
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.environment_record import git_state
from highnoon.shared.store.database import Database
from highnoon.shared.store.environments import Environments
from tests.cluster import Books, Cluster, running_cluster

SOURCES = {
    "with_keras": """
        import keras
        import numpy as np

        def with_keras(params):
            x = np.random.normal(size=(64, 4)).astype("float32")
            model = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
            model.compile(keras.optimizers.Adam(params["x"] ** 2 + 1e-3), "mse")
            return model.fit(x, x.sum(axis=1), epochs=2, verbose=0).history["loss"][-1]
    """,
    "suggests": """
        import random

        def suggests(trial):
            kind = trial.suggest_categorical("kind", ["a", None, 3])
            return trial.suggest_float("x", 0.0, 1.0) + random.random() + len(str(kind))
    """,
    "two_goals": """
        import random

        def two_goals(params):
            return {"error": params["x"] ** 2, "size": random.random()}
    """,
    "is_pruned": """
        import highnoon as hn

        SHIFT = 0.0

        def is_pruned(params):
            for step in range(5):
                hn.report(params["x"] + SHIFT + step, step)
                if hn.should_prune():
                    raise hn.TrialPruned
            return 0.0
    """,
    "fails": "def fails(params): return {}['no such key']",
    "forbidden": "def forbidden(params): return 0.0",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    for name, source in SOURCES.items():
        (folder / f"{name}.py").write_text(dedent(source))
    git = ("git", "-C", str(folder), "-c", "user.name=Anna", "-c", "user.email=anna@example.com")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "Begin")):
        subprocess.run([*git, *arguments], check=True)
    return folder


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(stack, tmp_path_factory.mktemp("reproduce"), slots=1) as cluster:
        # Commands get the password as in a deployment: from a file.
        user, password, place = re.fullmatch(r"(.*):(.*)@(.*)", cluster.database_url).groups()  # type: ignore[union-attr]
        (cluster.folder / "password").write_text(password)
        cluster.environ = {
            "HIGHNOON_DATABASE_URL": f"{user}@{place}",
            "HIGHNOON_DATABASE_PASSWORD_FILE": str(cluster.folder / "password"),
        }
        yield cluster


def ran(cluster: Cluster, books: Books, folder: Path, name: str, **keys: Any) -> None:
    if name == "suggests":
        keys["search_space"] = None
    if name == "two_goals":
        keys |= {"objectives": {"error": "minimize", "size": "minimize"}, "pruner": "none"}
    cluster.submit(f"{name}.py:{name}", 1, name=name, code_dir=str(folder), **keys)
    books.wait_until_over(name)


def reproduced(cluster: Cluster, name: str, code: int) -> dict[str, Any]:
    done = cluster.cli("reproduce", name, "0", "--json")
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ["with_keras", "suggests", "fails", "two_goals"])
def test_a_trial_has_the_same_result_again(name: str, cluster: Cluster, books: Books, folder: Path) -> None:
    ran(cluster, books, folder, name)

    found = reproduced(cluster, name, 0)

    assert found["is_same"] and found["before"]["values"] == found["now"]["values"]
    assert len(found["now"]["values"]) == {"fails": 0, "two_goals": 2}.get(name, 1)
    assert found["differs"] == [] and found["other_report"] is None
    assert books.closed(name) == 1 and len(books.attempts(name)) == 1, "nothing is recorded"


def test_what_differs_is_named(cluster: Cluster, books: Books, folder: Path) -> None:
    ran(cluster, books, folder, "is_pruned", pruner={"name": "threshold", "upper": -2.0})
    (attempt,) = books.attempts("is_pruned")
    assert reproduced(cluster, "is_pruned", 0)["before"]["state"] == "PRUNED"
    commit = git_state(folder)
    assert commit is not None and len(commit) == 40
    assert books.studies.get("is_pruned").spec["git"] == commit

    source = (folder / "is_pruned.py").read_text()
    (folder / "is_pruned.py").write_text(source.replace("SHIFT = 0.0", "SHIFT = 0.5"))
    database = Database(cluster.database_url)
    environments = Environments(database)
    content = environments.find(attempt.environment)
    assert content is not None
    assert content["python"] == platform.python_version() and "optuna" in content["packages"]
    other = {**content, "packages": {**content["packages"], "optuna": "4.0.0"}, "python": "3.9.1"}
    environments.keep("0" * 64, other)
    with books.transaction() as connection:
        connection.exec_driver_sql(f"UPDATE hn_attempts SET environment = '{'0' * 64}' WHERE environment IS NOT NULL")
    database.close()

    found = reproduced(cluster, "is_pruned", 1)

    assert found["now"]["values"] == [found["before"]["values"][0] + 0.5] and found["other_report"] == 0
    assert found["differs"][0].startswith("code: digest ")
    assert found["differs"][1:] == [
        f"Python: 3.9.1, now {platform.python_version()}",
        f"optuna: 4.0.0, now {content['packages']['optuna']}",
    ]
    printed = cluster.cli("reproduce", "is_pruned", "0").stdout
    assert "differs by 0.5" in printed and "reports differ from step 0 on" in printed
    assert git_state(folder) == f"{commit}+"


def test_another_ending_is_named() -> None:
    nothing: dict[str, Any] = {"values": [], "loss": None, "message": ""}
    before = {"ending": "failed", **nothing}
    now = {"ending": "completed", **nothing, "values": [0.5], "loss": 0.5}
    found = {"before": before, "now": now, "differs": [], "other_report": None, "is_same": False}
    lines = _lines(found)
    assert lines[0] == "before  failed  value -  loss -"
    assert lines[2] == "the ending differs"


def test_what_cannot_be_run_again_is_refused(cluster: Cluster) -> None:
    done = cluster.cli("reproduce", "is_pruned", "7")
    assert done.returncode == 2


def test_an_objective_that_is_not_allowed_is_refused_with_the_error_alone(
    cluster: Cluster, books: Books, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ran(cluster, books, folder, "forbidden")
    monkeypatch.setitem(cluster.environ, "HIGHNOON_OBJECTIVES", "/srv/*.py")
    capfd.readouterr()
    assert cluster.cli("reproduce", "forbidden", "0").returncode == 2
    shown = capfd.readouterr().err
    assert shown.startswith("error: ") and "forbidden.py" in shown and "action=" not in shown
