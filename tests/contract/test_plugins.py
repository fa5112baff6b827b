"""Samplers and pruners of a study's own code: in a process of their own, whose faults are errors and nothing else."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.samplers import TPESampler

import highnoon as hn
from highnoon.shared.domain.errors import InvalidInput, NoCompletedTrial, PluginFailed, UserInputError
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.objective.allow_list import AllowList
from highnoon.shared.objective.study_file import build_spec
from highnoon.shared.search import plugged
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.workers.trial.launch import ThisProcess
from tests.support import eventually

SPACE: dict[str, Any] = {"x": ["uniform", 0, 9], "kind": ["categorical", ["a", None]]}
ROOT = Path(__file__).parents[2]


def opened(**keys: Any) -> OptunaStudy:
    store = OptunaStore(None)
    spec = StudySpec.from_json({"name": "own", "objective": "m:f", "search_space": SPACE, "seed": 3, **keys})
    store.create_study("own", "minimize")
    return store.open(spec)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = set(psutil.Process().children())
    yield
    gc.collect()
    eventually(lambda: not set(psutil.Process().children()) - before, 20, what="plug-in processes have ended")


def run(study: OptunaStudy, count: int) -> list[optuna.trial.FrozenTrial]:
    for ordinal in range(count):
        started = study.start_trial(ordinal=ordinal)
        value = float(str(started.params["x"]))
        study.finish_trial(started.trial_id, Outcome(ending=Ending.COMPLETED, value=-value))
    return study.ended()


def test_a_sampler_of_its_own_sees_the_history_and_its_attributes_are_kept() -> None:
    study = opened(sampler={"name": "tests.plugins:Neighbours", "step": 0.25})
    study.allow_plugins(ROOT)
    trials = run(study, 4)
    assert [trial.system_attrs["plugin:neighbours:seen"] for trial in trials] == [0, 1, 2, 3]
    first = trials[0].params["x"]
    assert [trial.params["x"] for trial in trials[1:]] == pytest.approx([first + 0.25, first + 0.5, first + 0.75])

    again = opened(sampler={"name": "tests.plugins:Neighbours", "step": 0.25})
    again.allow_plugins(ROOT)
    assert [trial.params for trial in run(again, 4)] == [trial.params for trial in trials], "the study's seed holds"


@pytest.mark.parametrize("name", ["TPESampler", "CmaEsSampler", "NSGAIISampler"])
def test_samplers_of_optuna_work_behind_the_pipe(name: str) -> None:
    study = opened(sampler=f"optuna.samplers:{name}")
    study.allow_plugins(None)
    assert len(run(study, 12)) == 12 and study.plugin_fault() is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("tests.plugins:Raises", "ZeroDivisionError: no neighbours"),
        ("tests.plugins:Dies", "its process has ended"),
        ("tests.plugins:Hangs", "gave no answer in 0.3 s"),
        ("tests.plugins:Outside", "gave x = 'outside', outside of FloatDistribution"),
        ("tests.plugins:AfterTwo", "is no class of Optuna's BaseSampler"),
        ("tests.plugins:Nothing", "has no Nothing"),
        ("tests.no_plugins:Any", "there is no module tests.no_plugins"),
    ],
)
def test_a_broken_sampler_is_an_error_that_names_it(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened(sampler=name)
    with pytest.raises(PluginFailed, match="sampler"):
        study.allow_plugins(ROOT)
        monkeypatch.setattr(plugged, "_ANSWER_S", 0.3 if "Hangs" in name else 10.0)
        study.start_trial(ordinal=0)
    assert fault in (study.plugin_fault() or "")
    assert study.trials() == [], "nothing was begun"


def test_a_pruner_of_its_own_decides_and_a_broken_one_lets_trials_go_on() -> None:
    asked = {}
    for name in ("AfterTwo", "RaisingPruner"):
        study = opened(pruner=f"tests.plugins:{name}", sampler="random")
        study.allow_plugins(ROOT)
        started = study.start_trial(ordinal=0)
        answers = []
        for step in range(3):
            study.report_many(started.trial_id, [Report(step=step, value=1.0)])
            answers.append(study.should_prune(started.trial_id))
        asked[name] = answers, study.plugin_fault(), study.trial(0).attrs, study.optuna_study.trials[0].system_attrs
    assert asked["AfterTwo"][:2] == ([False, True, True], None)
    assert asked["AfterTwo"][3]["plugin:after_two:asked"] is True
    assert asked["RaisingPruner"][:2] == (
        [False, False, False],
        "pruner tests.plugins:RaisingPruner: ZeroDivisionError: no idea",
    )


def test_a_process_that_is_not_asked_any_longer_ends_and_the_next_question_starts_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plugged, "_IDLE_S", 4.0)
    study = opened(sampler="tests.plugins:Neighbours", pruner="tests.plugins:AfterTwo")
    before = set(psutil.Process().children())
    study.allow_plugins(ROOT)
    run(study, 1)

    def working() -> set[psutil.Process]:
        started = set(psutil.Process().children()) - before
        return {one for one in started if one.status() != psutil.STATUS_ZOMBIE}

    assert working()
    eventually(lambda: not working(), 60, what="both have ended by themselves")
    study.close_plugins(if_idle=True)
    assert set(psutil.Process().children()) == before, "and nothing of them is left"
    monkeypatch.undo()
    assert len(run(study, 2)) == 3, "the sampler answers again"
    started = study.start_trial(ordinal=3)
    answers = []
    for step in range(2):
        study.report_many(started.trial_id, [Report(step=step, value=1.0)])
        answers.append(study.should_prune(started.trial_id))
    assert answers == [False, True], "the pruner answers again"
    assert study.plugin_fault() is None
    study.close_plugins()


def test_process_that_died_between_two_questions_is_started_again() -> None:
    study = opened(sampler="tests.plugins:Neighbours")
    before = set(psutil.Process().children())
    study.allow_plugins(ROOT)
    run(study, 1)
    (process,) = set(psutil.Process().children()) - before
    process.kill()
    # Its first thread is a zombie before the others have ended, and it can be reaped.
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    eventually(lambda: os.waitid(os.P_PID, process.pid, ended), what="it has died")
    study.allow_plugins(ROOT)
    assert len(run(study, 2)) == 3 and study.plugin_fault() is None


def test_process_that_was_started_during_a_spawned_trial_outlives_it() -> None:
    # Given a trial in an interpreter of its own, during which the process of a pruner is started
    parent = ThisProcess()
    trial = subprocess.Popen([sys.executable, "-c", ""])
    study = opened(pruner="tests.plugins:AfterTwo", sampler="random")
    before = set(psutil.Process().children())
    study.allow_plugins(ROOT)
    (process,) = set(psutil.Process().children()) - before
    # When what the trial has left is ended
    parent.wait(trial.pid)
    trial.returncode = 0
    # Then the pruner's process is there
    assert process.status() != psutil.STATUS_ZOMBIE
    started = study.start_trial(ordinal=0)
    study.report_many(started.trial_id, [Report(step=0, value=1.0)])
    assert not study.should_prune(started.trial_id) and study.plugin_fault() is None
    assert process.is_running()
    study.close_plugins()


def test_what_is_not_allowed_is_not_started() -> None:
    study = opened(sampler="tests.plugins:Raises", pruner="tests.plugins:RaisingPruner")
    before = psutil.Process().children()
    assert len(run(study, 2)) == 2 and psutil.Process().children() == before
    assert AllowList(patterns=("m:f",)).refusal(ObjectiveRef.parse("tests.plugins:Raises"), None) is not None


def test_mistakes_in_both_are_reported_with_all_others() -> None:
    written = {
        "name": "own", "objective": "tests.objectives:goood", "sampler": "tests.plugins:Neigbours",
        "pruner": "tests.plugin:AfterTwo", "search_space": SPACE, "repeats": 0,
    }  # fmt: skip
    with pytest.raises(InvalidInput) as refused:
        build_spec(written, source="study", code_dir=ROOT)
    found = {problem.key: problem for problem in refused.value.problems}
    assert set(found) == {"objective", "sampler", "pruner", "repeats"}
    assert "Did you mean Neighbours?" in found["sampler"].hint and "Did you mean plugins?" in found["pruner"].hint


def test_in_process_an_object_or_a_class_is_taken() -> None:
    def points(**keys: Any) -> list[Any]:
        hpo = hn.HPOTrialManager("own", n_trials=12, **keys)
        hpo.optimize(lambda params: params["x"], {"x": ("uniform", 0.0, 1.0)}, show_progress=False)
        return [trial.params["x"] for trial in hpo.trials]

    study = optuna.create_study(sampler=TPESampler(seed=4))
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), 12)
    assert points(sampler=TPESampler(seed=4), pruner=optuna.pruners.NopPruner()) == [
        trial.params["x"] for trial in study.trials
    ]
    assert len(points(sampler={"name": "optuna.samplers:TPESampler", "n_startup_trials": 3}, seed=1)) == 12
    with pytest.raises(PluginFailed, match=r"sampler optuna.pruners:MedianPruner: is no class of Optuna's BaseSampler"):
        points(sampler="optuna.pruners:MedianPruner")
    with pytest.raises(InvalidInput, match=r"sampler: must be a name"):
        points(sampler="optuna.samplers:")


def test_a_given_object_goes_with_a_copy_and_not_with_a_pickle() -> None:
    sampler, pruner = TPESampler(seed=4), optuna.pruners.NopPruner()
    hpo = hn.HPOTrialManager("own", n_trials=1, sampler=sampler, pruner=pruner)
    space = {"x": ("uniform", 0.0, 1.0)}

    copied = copy.copy(hpo)
    copied.optimize(lambda params: params["x"], space, show_progress=False)
    assert copied.study.sampler is sampler and copied.study.pruner is pruner

    sent = pickle.loads(pickle.dumps(hpo))
    with pytest.raises(UserInputError, match=r"sampler and pruner are objects of another process\. Give them again"):
        sent.optimize(lambda params: params["x"], space)
    named = pickle.loads(pickle.dumps(hn.HPOTrialManager("named", n_trials=1, sampler="random")))
    named.optimize(lambda params: params["x"], space, show_progress=False)
    assert len(named.trials) == 1


def of_given(sampler: optuna.samplers.BaseSampler, url: str | None = None, **options: Any) -> hn.HPOTrialManager:
    """Six trials of x from 0 to 1, as far as the sampler lets them run."""
    hpo = hn.HPOTrialManager("own", n_trials=6, sampler=sampler, storage=url, **options)

    def objective(params: dict[str, Any]) -> float:
        hn.log(missing=params["x"] - 0.5)
        return float(params["x"])

    hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)}, show_progress=False)
    return hpo


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("isolation", ["none", "fork"])
def test_a_given_sampler_stores_its_constraints(optuna_store: OptunaStore, isolation: str) -> None:
    sampler = TPESampler(seed=1, constraints_func=lambda trial: (-trial.user_attrs["missing"],))
    hpo = of_given(sampler, optuna_store.url, isolation=isolation)
    assert all(trial.constraints == {"0": 0.5 - float(str(trial.params["x"]))} for trial in hpo.trials)
    assert hpo.best_trial.value is not None and hpo.best_trial.value >= 0.5


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_misses_a_given_samplers_constraint_is_no_better_value() -> None:
    with pytest.raises(NoCompletedTrial, match="no feasible trial yet: 2 COMPLETE"):
        of_given(TPESampler(constraints_func=lambda trial: (1.0,)), early_stop={"patience": 2})


def test_a_given_sampler_ends_the_run() -> None:
    hpo = of_given(optuna.samplers.GridSampler({"x": [0.25, 0.75]}))
    assert sorted(str(trial.params["x"]) for trial in hpo.trials) == ["0.25", "0.75"]


def test_what_a_given_sampler_raises_after_a_trial_ends_the_run_and_the_trial_counts(tmp_path: Path) -> None:
    class Raising(optuna.samplers.RandomSampler):
        def after_trial(self, *_: Any) -> None:
            raise ZeroDivisionError("no constraint")

    with pytest.raises(ZeroDivisionError, match="no constraint"):
        of_given(Raising(), f"sqlite:///{tmp_path}/own.db")
    study = optuna.load_study(study_name="own", storage=f"sqlite:///{tmp_path}/own.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]


@pytest.mark.parametrize("isolation", ["none", "fork"])
def test_a_given_grid_knows_the_point_of_a_trial_that_suggested_nothing(isolation: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.number == 1:
            raise ValueError("no data")
        return trial.suggest_int("x", 1, 2)

    grid = optuna.samplers.GridSampler({"x": [1, 2]})
    hpo = hn.HPOTrialManager("own", n_trials=4, sampler=grid, isolation=isolation)
    hpo.optimize(objective, show_progress=False)
    assert [str(trial.state) for trial in hpo.trials] == ["COMPLETE", "FAIL"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_trial_is_given_to_its_sampler_once_when_the_call_is_repeated() -> None:
    given = []

    def constraints(trial: optuna.trial.FrozenTrial) -> tuple[float]:
        given.append(trial.number)
        return (0.5,)

    store = OptunaStore(None)
    store.create_study("own", "minimize")
    spec = StudySpec.from_json({"name": "own", "objective": "m:f", "search_space": SPACE})
    study = store.open(spec, sampler=TPESampler(constraints_func=constraints))
    trial_id = study.start_trial(ordinal=0).trial_id
    outcome = Outcome(ending=Ending.COMPLETED, value=1.0, loss=1.0)
    assert [study.inform_sampler(trial_id, outcome).misses for _ in range(2)] == [{"0": 0.5}] * 2
    assert given == [0]
