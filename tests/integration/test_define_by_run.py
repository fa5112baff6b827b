"""Define-by-run on a cluster: forty conditional trials whose processes and supervisors are killed in the middle."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import TrialState
from tests.cluster import Books, Cluster, running_cluster

N_TRIALS = 40


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("defining")
    with running_cluster(stack, folder, {"TEST_GO_FOLDER": str(folder)}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def name(cluster: Cluster, books: Books) -> str:
    """The study, over."""
    cluster.submit("suggests", N_TRIALS, name="defining", search_space=None, sampler="tpe", pruner="median")
    books.wait_until_over("defining")
    return "defining"


def test_every_attempt_of_a_ticket_has_the_same_answers_and_all_are_kept(
    cluster: Cluster, books: Books, name: str
) -> None:
    books.assert_balanced(name, N_TRIALS)
    answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(Path(cluster.folder).glob(f"{name}-*.json")):
        answers[path.stem.rsplit("-", 1)[0]].append(json.loads(path.read_text()))
    assert len(answers) == N_TRIALS
    assert sum(len(attempts) > 1 for attempts in answers.values()) >= N_TRIALS // 4
    trials = {trial.number: trial for trial in books.trials(name)}
    for attempts in answers.values():
        assert len({json.dumps(attempt["params"]) for attempt in attempts}) == 1
        for attempt in attempts:
            kept = trials[attempt["number"]]
            assert attempt["params"].items() <= kept.params.items()
            ended = kept.state is TrialState.COMPLETE
            assert ("after the report" in kept.params) == ended or kept.state is TrialState.PRUNED
    complete = [trial for trial in trials.values() if trial.state is TrialState.COMPLETE]
    assert len(complete) == N_TRIALS
    assert all(trial.attrs["last"] is True and trial.reports for trial in complete)
    assert len({str(trial.params) for trial in complete}) == N_TRIALS


def test_it_is_read_like_any_other(cluster: Cluster, name: str) -> None:
    shown = json.loads(cluster.cli("trials", name, "--json", "--limit", "100").stdout)
    assert any("momentum" in trial["params"] for trial in shown)
    sorted_by = cluster.cli("trials", name, "--sort", "momentum")
    assert sorted_by.returncode == 0, sorted_by.stderr
    for kind in ("slice", "parallel", "importances"):
        drawn = cluster.cli("plot", name, "--kind", kind, "-o", f"{kind}.html")
        assert drawn.returncode == 0, drawn.stderr
    best = json.loads(cluster.cli("best", name, "--json").stdout)
    assert {"x", "layers", "units_0", "optimizer", "after the report"} <= best["params"].keys()


def test_a_point_is_enqueued_and_the_sampler_chooses_the_rest(cluster: Cluster, books: Books, name: str) -> None:
    enqueued = cluster.cli("enqueue", name, "x=0.125", "layers=2", "optimizer=sgd")
    assert enqueued.returncode == 0, enqueued.stderr
    books.wait_until_over(name)
    newest = books.trials(name)[-1]
    assert (newest.params["x"], newest.params["layers"], newest.params["optimizer"]) == (0.125, 2, "sgd")
    assert "momentum" in newest.params


def test_an_objective_that_takes_parameters_needs_a_search_space(cluster: Cluster) -> None:
    refused = cluster.cli("submit", str(cluster.write("noop", 3, name="without", search_space=None)))
    assert refused.returncode == 2
    assert "search_space: is missing" in refused.stderr and "argument trial" in refused.stderr


def test_a_trial_that_breaks_a_constraint_of_its_own_is_never_the_best(cluster: Cluster, books: Books) -> None:
    # Given trials below the target value, all of which break a constraint that the objective sets
    options = {"search_space": None, "target_value": 0.45}
    name = cluster.submit("breaks_its_own_constraint", 12, name="own", **options)
    for x in (0.1, 0.2, 0.7):
        assert cluster.cli("enqueue", name, f"x={x}").returncode == 0
    record = books.wait_until_over(name)

    # Then no infeasible one has ended the study, and none is the best
    trials = books.trials(name)
    infeasible = [trial for trial in trials if not trial.is_feasible]
    assert min(trial.value or 0.0 for trial in infeasible) < 0.45
    assert record.stop_reason == "n_trials" and len(trials) == 15
    best = min(trial.value for trial in trials if trial.is_feasible and trial.value is not None)
    assert json.loads(cluster.cli("best", name, "--json").stdout)["value"] == best >= 0.5
    assert json.loads(cluster.cli("status", name, "--json").stdout)["best_value"] == best
    assert "infeasible: constraint size is 0." in str(infeasible[0].attrs["highnoon:message"])
