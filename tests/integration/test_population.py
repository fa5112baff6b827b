"""Population-based training in process and on a cluster: trials go on from one another's checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

import highnoon as hn
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.extension import EXTENDS
from highnoon.shared.domain.states import CAUSE, Cause, Ending, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Trial
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.search.population import GENERATION, KEPT_BY_RETRY
from highnoon.shared.store.bundles import Bundles
from highnoon.workers.code.code_gate import CodeGate
from tests.cluster import Books, Cluster, running_cluster
from tests.objectives import goes_on

SPACE = {"rate": ("uniform", 0.01, 0.5)}
PBT = {"name": "pbt", "population": 3, "perturbation_interval": 4}


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("population")
    with running_cluster(stack, folder, {"HIGHNOON_ARTIFACTS_URL": str(folder / "store")}, slots=2) as cluster:
        yield cluster


def assert_trained_on(trials: list[Trial]) -> None:
    """Each trial has begun where the one before it had stopped, and ended four steps later."""
    by_number = {trial.number: trial for trial in trials}
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(complete) == 9 and sum(trial.attrs[GENERATION] == 0 for trial in complete) == 3
    for trial in complete:
        generation = trial.attrs[GENERATION]
        assert (trial.reports[-1].step, trial.attrs[CAUSE]) == (4 * (generation + 1), Cause.SEGMENT_END)
        before = 1.0
        if generation:
            parent = by_number[trial.attrs[EXTENDS]]
            assert parent.attrs[GENERATION] == generation - 1 and parent.value is not None
            before = parent.value
        assert trial.value == pytest.approx(before * (1.0 - trial.params["rate"]) ** 4)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_population_trains_in_process(n_jobs: int) -> None:
    hpo = hn.HPOTrialManager("population", n_trials=9, sampler=PBT, seed=3)
    best = hpo.optimize(goes_on, SPACE, n_jobs=n_jobs)
    assert_trained_on(hpo.trials)
    assert Counter(trial.attrs[GENERATION] for trial in hpo.trials) == {0: 3, 1: 3, 2: 3}
    assert hpo.best_value == min(trial.value for trial in hpo.trials if trial.value is not None)
    assert hpo.best_params == best and hpo.best_trial.attrs[GENERATION] == 2
    if n_jobs == 1:  # the best of the first generation has replaced the worst
        first = sorted((trial.value or 1.0, trial.number) for trial in hpo.trials[:3])
        assert Counter(trial.attrs[EXTENDS] for trial in hpo.trials[3:6]) == {first[0][1]: 2, first[1][1]: 1}


def test_a_further_call_trains_a_population_of_its_own() -> None:
    hpo = hn.HPOTrialManager("population", n_trials=6, sampler=PBT, seed=3)
    for _ in range(2):
        hpo.optimize(goes_on, SPACE)
    assert Counter(trial.attrs[GENERATION] for trial in hpo.trials[6:]) == {0: 3, 1: 3}
    assert all(trial.attrs.get(EXTENDS, 6) >= 6 for trial in hpo.trials[6:])


def test_members_keep_the_constraints_on_parameters() -> None:
    def trains_on(params: dict[str, float]) -> float:
        return goes_on({"rate": params["a"] * params["b"]})

    space = {"a": ("uniform", 0.0, 1.0), "b": ("uniform", 0.0, 1.0)}
    for seed in range(4):
        hpo = hn.HPOTrialManager(f"constrained-{seed}", n_trials=12, sampler=PBT, seed=seed)
        hpo.optimize(trains_on, space, param_constraints=["a + b <= 1"])
        assert all(trial.params["a"] + trial.params["b"] <= 1.0 for trial in hpo.trials)


def test_a_training_without_checkpoints_begins_again_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def saves_nothing(params: dict[str, float]) -> float:
        for step in range(1, 9):
            hn.report(params["rate"], step)
            if hn.should_prune():
                raise hn.TrialPruned
        return params["rate"]

    hpo = hn.HPOTrialManager("saves-nothing", n_trials=6, sampler={**PBT, "population": 2}, seed=3)
    hpo.optimize(saves_nothing, SPACE)
    assert [trial.attrs[GENERATION] for trial in hpo.trials] == [0] * 6
    assert caplog.text.count("action=no_checkpoints") == 1


def test_a_population_trains_on_a_cluster_also_where_a_trial_is_killed(cluster: Cluster, books: Books) -> None:
    # Given a population in which some training is killed in its seventh epoch
    space = {**SPACE, "is_killed": ("categorical", [True])}
    name = cluster.submit_here("goes_on", 9, name="population", search_space=space, sampler=PBT, seed=3)
    books.wait_until_over(name)
    books.assert_balanced(name, 9)

    # Then every training went on from the one before it
    trials = books.trials(name)
    assert_trained_on(trials)

    # And so did the attempt after the one that was killed: at the same point, from its own checkpoint
    by_number = {trial.number: trial for trial in trials}
    attempts = books.attempts(name)
    killed = [attempt for attempt in attempts if attempt.ending is Ending.KILLED]
    assert killed
    for lost in killed:
        again = next(one for one in attempts if (one.ordinal, one.attempt) == (lost.ordinal, lost.attempt + 1))
        before, after = by_number[lost.trial_number or 0], by_number[again.trial_number or 0]
        assert before.params == after.params and before.attrs[GENERATION] == 1
        assert [before.attrs[key] for key in KEPT_BY_RETRY] == [after.attrs[key] for key in KEPT_BY_RETRY]
        assert "begins with epoch 6" in log_of(cluster, name, after.number)


def test_a_worker_without_a_store_refuses_a_population() -> None:
    spec = StudySpec.from_json({"name": "p", "objective": "a.py:f", "search_space": SPACE, "sampler": PBT})
    refusal = CodeGate(load_settings({}), cast(Bundles, None)).pass_or_refuse(spec).refusal
    assert refusal is not None and (refusal.ending, refusal.cause) == (Ending.FAILED, "no_store")
    assert "set HIGHNOON_ARTIFACTS_URL" in refusal.message


def log_of(cluster: Cluster, name: str, number: int) -> str:
    return next(Path(cluster.folder).glob(f"home*/logs/{name}/trial-{number:05d}.log")).read_text()
