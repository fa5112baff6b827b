"""What is promised of callbacks and scores where workers run the trials: one coordinator and one node serve it all."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from highnoon.callbacks import CSVLogger, follow
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.errors import UnknownStudy
from highnoon.shared.domain.states import StudyState, TrialState
from tests.cluster import Books, Cluster, running_cluster

CALLBACKS = """
from highnoon.callbacks import CSVLogger

log = CSVLogger("waited.csv")


def on_trial_complete(study, trial):
    print(f"Trial {trial.number}: {trial.value:.4f}", flush=True)
"""


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(stack, tmp_path_factory.mktemp("callbacks")) as cluster:
        yield cluster


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_who_follows_hears_of_each_trial_once(cluster: Cluster, books: Books, tmp_path: Path) -> None:
    # Given a study of which some trials fail
    heard: list[tuple[str, int]] = []
    name = cluster.submit_here("fails_for_half", 6, name="followed")

    # When it is followed to its end, and once more by a late reader
    def on_trial_complete(study: Any, trial: Any) -> None:
        heard.append((study.study_name, trial.number))

    callbacks = [on_trial_complete, CSVLogger(tmp_path / "trials.csv")]
    follow(name, callbacks, storage=cluster.database_url)
    follow(name, [CSVLogger(tmp_path / "trials.csv")], storage=cluster.database_url)

    # Then each trial was called back once, and stands in the file once, as the study has it
    books.assert_balanced(name, 6)
    trials = books.trials(name)
    assert sorted(heard) == [(name, trial.number) for trial in trials]
    rows = sorted(rows_of(tmp_path / "trials.csv"), key=lambda row: int(row["trial"]))
    assert [(int(row["trial"]), row["state"]) for row in rows] == [(trial.number, trial.state) for trial in trials]
    assert [float(row["param:x"]) for row in rows] == [trial.params["x"] for trial in trials]
    assert {row["cause"] for row in rows if row["state"] == "FAIL"} == {"exception"}


def test_a_callback_stops_the_study(cluster: Cluster, books: Books) -> None:
    name = cluster.submit_here("slow", 200, name="stopped")

    follow(name, [lambda study, _: study.stop()], storage=cluster.database_url)

    assert books.studies.get(name).state is StudyState.PAUSED


def test_an_unknown_study_is_answered_with_the_nearest(cluster: Cluster) -> None:
    cluster.submit_here("noop", 1, name="nearby")

    with pytest.raises(UnknownStudy, match="Did you mean nearby"):
        follow("nearly", [print], storage=cluster.database_url)


def test_submit_calls_back_while_it_waits(cluster: Cluster) -> None:
    # Given a study file, and beside it a function and a logger
    study = cluster.write("good", 4, name="waited")
    (cluster.folder / "mine.py").write_text(CALLBACKS)

    # When it is submitted and waited for
    named = ["--callback", "mine.py:on_trial_complete", "--callback", "mine.py:log"]
    done = cluster.cli("submit", str(study), "--wait", *named)

    # Then each trial was called back with its value
    assert done.returncode == 0, done.stderr
    rows = rows_of(cluster.folder / "waited.csv")
    assert sorted(int(row["trial"]) for row in rows) == [0, 1, 2, 3]
    for row in rows:
        assert done.stdout.count(f"Trial {row['trial']}: {float(row['score']):.4f}") == 1


def test_the_books_hold_scores_and_the_trials_hold_losses(cluster: Cluster, books: Books) -> None:
    space = {"x": ["uniform", 0.1, 1.0]}
    cluster.submit("sized", 4, name="soft", search_space=space, param_budget=1000, pruner="none")
    cluster.submit("sized", 4, name="hard", search_space=space, param_budget=400, param_budget_hard=True)
    for name in ("soft", "hard"):
        books.wait_until_over(name)
        books.assert_balanced(name, 4)

    soft = books.trials("soft")
    for trial in soft:
        assert (trial.loss, trial.params_count, trial.active_params) == (trial.params["x"], 500, 200)
        assert trial.value == pytest.approx(1.05 * float(str(trial.params["x"])))
        assert [report.value for report in trial.reports] == [trial.value] * 2
    best = json.loads(cluster.cli("best", "soft", "--json").stdout)
    assert best["value"] == min(trial.value or math.inf for trial in soft)
    for trial in books.trials("hard"):
        assert (trial.state, trial.attrs["highnoon:cause"]) == (TrialState.PRUNED, "param_budget")
        assert (trial.value, trial.params_count, trial.reports) == (None, 500, ())
