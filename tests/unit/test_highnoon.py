"""The package as it is imported, and a manager's messages before it has connected to anything."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import optuna
import pytest

import highnoon as hn
from highnoon.shared.domain.errors import (
    InvalidInput,
    NoTrialRunning,
    StudyConflict,
    TrialPruned,
    TrialStopped,
    UserInputError,
)
from highnoon.shared.domain.space import read_space
from highnoon.shared.domain.states import TrialState

HEAVY = ("optuna", "sqlalchemy", "pydantic", "tensorflow", "keras", "numpy", "celery")


def loaded_after(program: str) -> set[str]:
    listing = f"{program}\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded_after("import highnoon") == set()


def test_names_used_by_objectives_import_nothing_heavy() -> None:
    assert (
        loaded_after("import highnoon as hn; hn.report, hn.should_prune, hn.TrialPruned, hn.hsmn_search_space") == set()
    )


def test_building_a_manager_connects_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = "import highnoon as hn; hn.HPOTrialManager('digits', storage='sqlite:///hpo.db')"

    assert loaded_after(program) <= {"pydantic"}
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_is_there() -> None:
    assert set(hn.__all__) <= set(dir(hn))
    for name in hn.__all__:
        assert getattr(hn, name) is not None
    assert hn.TrialPruned is TrialPruned and hn.TrialStopped is TrialStopped
    assert hn.__version__.count(".") == 2


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'HPOTrialManger'\. Did you mean HPOTrialManager\?"):
        hn.HPOTrialManger  # type: ignore[attr-defined]  # noqa: B018


def test_the_hsmn_space_is_a_valid_space() -> None:
    space, problems = read_space(hn.hsmn_search_space)

    assert problems == []
    assert len(space) == 14


def test_all_mistakes_of_a_manager_are_reported_at_once() -> None:
    wrong: dict[str, Any] = {
        "study_name": "a/b",
        "n_trials": 0,
        "direction": "min",
        "storage": "postgre://host/db",
        "pruner": "medan",
        "sampler": {"name": "tpe", "n_startup": 3},
        "seed": -1,
    }

    with pytest.raises(InvalidInput) as caught:
        hn.HPOTrialManager(**wrong)

    assert caught.value.source == "HPOTrialManager"
    problems = {problem.key: problem for problem in caught.value.problems}
    assert set(problems) == {"study_name", "n_trials", "direction", "storage", "pruner", "sampler.n_startup", "seed"}
    assert "median" in problems["pruner"].hint
    assert "n_startup_trials" in problems["sampler.n_startup"].hint
    assert "postgres" in problems["storage"].hint


@pytest.mark.parametrize("storage", [5, b"sqlite://", ["sqlite://"], "hpo.db", ""])
def test_storage_that_is_not_an_address_is_refused(storage: Any) -> None:
    with pytest.raises(InvalidInput, match="storage: "):
        hn.HPOTrialManager("digits", storage=storage)


def test_the_password_of_a_wrong_address_is_not_shown() -> None:
    with pytest.raises(InvalidInput) as caught:
        hn.HPOTrialManager("digits", storage="oracle://me:secret@host/db")

    assert "secret" not in str(caught.value)


def test_options_of_sampler_and_pruner_are_accepted() -> None:
    hn.HPOTrialManager(
        "digits",
        sampler={"name": "tpe", "n_startup_trials": 20},
        pruner={"name": "hyperband", "max_resource": 20},
    )


def test_the_study_name_is_required() -> None:
    with pytest.raises(TypeError, match="study_name"):
        hn.HPOTrialManager(pruner="median")  # type: ignore[call-arg]


def test_a_number_of_jobs_may_be_of_numpy() -> None:
    one: Any = numpy.int64(1)
    assert hn.HPOTrialManager("digits", n_trials=1).optimize(lambda p: 0.0, {"x": ("int", 1, 1)}, n_jobs=one) == {
        "x": 1
    }


def test_all_mistakes_of_optimize_are_reported_at_once() -> None:
    hpo = hn.HPOTrialManager("digits")

    with pytest.raises(InvalidInput) as caught:
        hpo.optimize(
            "train",  # type: ignore[arg-type]
            {"lr": ("log_uniform", 0.0, 1.0), "units": ("itn", 1, 2)},
            n_trials=-1,
            callbacks=[print, "print"],  # type: ignore[list-item]
        )

    assert caught.value.source == "optimize()"
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {"search_space.lr", "search_space.units", "n_trials", "objective", "callbacks"}


def test_takes_numpys_numbers_and_a_single_callback() -> None:
    numbers: list[int] = []
    hpo = hn.HPOTrialManager("digits", n_trials=numpy.int64(9), seed=numpy.int32(1))  # type: ignore[arg-type]

    def stop(study: Any, trial: Any) -> None:
        numbers.append(trial.number)
        study.stop()

    hpo.optimize(lambda params: params["x"], {"x": ("uniform", 0, 1)}, callbacks=stop)
    assert numbers == [0]
    for wrong in (5, 0, False, "print"):
        with pytest.raises(InvalidInput) as refused:
            hpo.optimize(lambda params: 0.0, {"x": ("uniform", 0, 1)}, callbacks=wrong)  # type: ignore[arg-type]
        assert f"callbacks: must be functions of (study, trial) (got {wrong!r})" in str(refused.value)


def test_warns_of_a_range_whose_end_no_step_reaches(caplog: pytest.LogCaptureFixture) -> None:
    hn.HPOTrialManager("digits", n_trials=1).optimize(lambda params: 0.0, {"units": ("int", 256, 1024, 100)})
    assert "search_space.units: in steps of 100 from 256 the last value tried is 956, not 1024" in caplog.text


def test_a_callback_that_prints_a_failed_trials_value_costs_a_line_and_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def report(study: Any, trial: Any) -> None:
        print(f"{trial.value:.4f}")

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 0:
            raise ValueError
        return 1.0

    hn.HPOTrialManager("digits", n_trials=2, sampler="grid").optimize(
        objective, {"x": ("int", 0, 1)}, callbacks=[report]
    )
    failed = [record for record in caplog.records if "callback_failed" in record.message]
    assert len(failed) == 1 and not failed[0].exc_info
    assert "the trial has no value" in failed[0].message


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one parameter"):
        hn.HPOTrialManager("digits").optimize(lambda params: 0.0, {})


def test_a_grid_refuses_a_continuous_range_by_its_name() -> None:
    hpo = hn.HPOTrialManager("digits", sampler="grid")

    with pytest.raises(InvalidInput, match=r"search_space\.lr: .* needs a finite number of values"):
        hpo.optimize(lambda params: 0.0, {"lr": ("uniform", 0.0, 1.0), "k": ("categorical", [1, 2])})


def test_reporting_outside_a_trial_raises_no_trial_running() -> None:
    hpo = hn.HPOTrialManager("digits")

    for call in (lambda: hpo.report(0.5, 0), hpo.should_prune, lambda: hn.report(0.5, 0), hn.should_prune):
        with pytest.raises(NoTrialRunning, match="inside an objective"):
            call()


def test_manager_in_a_workers_trial_refuses_to_read_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGHNOON_TICKET", "17")
    hpo = hn.HPOTrialManager("digits", storage="sqlite:///hpo.db")

    with pytest.raises(UserInputError, match="__main__"):
        hpo.optimize(lambda params: 0.0, {"x": ("uniform", 0.0, 1.0)})
    with pytest.raises(UserInputError, match="without any database"):
        hpo.best_params  # noqa: B018


@pytest.mark.parametrize(("direction", "ran"), [("minimize", 2 + 4), ("maximize", 5 + 4)])
def test_a_run_that_does_not_get_better_ends_early(direction: str, ran: int) -> None:
    hpo = hn.HPOTrialManager("flat", n_trials=40, direction=direction, sampler="random", early_stop={"patience": 4})
    values = iter([0.9, 0.1, 0.5, 0.6, 0.95, *[0.2] * 50])
    hpo.optimize(lambda params: next(values), {"x": ("uniform", 0.0, 1.0)})
    assert len(hpo.trials) == ran

    # And a further call counts from its own start
    hpo.optimize(lambda params: next(values), {"x": ("uniform", 0.0, 1.0)}, n_trials=10)
    assert len(hpo.trials) == ran + 4


@pytest.mark.parametrize("isolation", ["none", "fork"])
def test_a_point_is_repeated_until_it_is_seen_to_be_bad(isolation: str) -> None:
    def objective(params: dict[str, Any]) -> float:
        return float(params["x"]) + (hn.trial_seed() % 1000) / 1000

    hpo = hn.HPOTrialManager("noisy", n_trials=12, sampler="random", seed=5, repeats=3, isolation=isolation)
    hpo.optimize(objective, {"x": ("int", 0, 9)}, show_progress=False)
    states = {trial.state for trial in hpo.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in hpo.trials:
        assert trial.metrics["repeats"] == (3 if trial.state is TrialState.COMPLETE else 1)
        assert trial.value is not None and 0 <= trial.value - float(str(trial.params["x"])) < 1
    assert hpo.best_trial.metrics["repeats_std"] > 0

    always = hn.HPOTrialManager("noisy", n_trials=6, sampler="random", seed=5, repeats=2, pruner="none")
    always.optimize(objective, {"x": ("int", 0, 9)}, show_progress=False)
    assert [trial.metrics["repeats"] for trial in always.trials] == [2] * 6


@pytest.mark.parametrize("sampler", ["random", "auto"])
def test_each_enqueued_point_is_completed_in_another_way(sampler: str) -> None:
    hpo = hn.HPOTrialManager("digits", n_trials=5, sampler=sampler, seed=1)
    for rate in (0.1, 0.2, 0.3):
        hpo.enqueue({"rate": rate})
    hpo.optimize(lambda params: params["x"], {"rate": ("uniform", 0, 1), "x": ("uniform", 0, 1)}, show_progress=False)
    assert [trial.params["rate"] for trial in hpo.trials[:3]] == [0.1, 0.2, 0.3]
    assert len({trial.params["x"] for trial in hpo.trials}) == 5


@pytest.mark.parametrize("sampler", [{"name": "grid", "points": 5}, "brute_force"])
def test_an_exhaustive_search_refuses_an_enqueued_point(sampler: Any) -> None:
    with pytest.raises(StudyConflict, match="study 'digits' tries the points of a grid, and no others"):
        hn.HPOTrialManager("digits", sampler=sampler).enqueue({"x": 0.25})


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optunas_brute_force_sampler_is_refused_with_the_name_of_ours() -> None:
    class Own(optuna.samplers.BruteForceSampler):
        pass

    for sampler in (optuna.samplers.BruteForceSampler(), Own()):
        with pytest.raises(InvalidInput, match=r'sampler: .*BruteForceSampler.*sampler="brute_force"'):
            hn.HPOTrialManager("digits", sampler=sampler)
