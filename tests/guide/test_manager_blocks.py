"""The blocks of the guide that HPOTrialManager alone serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import highnoon as hn
from highnoon.shared.domain.space import read_space
from highnoon.shared.runtime.urls import normalise
from tests import mariadb
from tests.guide.blocks import GUIDE, blocks, run

Params = dict[str, Any]


@pytest.fixture(autouse=True)
def _files_land_in_a_folder_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def objective(params: Params) -> float:
    """A loss that has its minimum at a learning rate of 1e-4."""
    return abs(float(params["learning_rate"]) - 1e-4)


SPACE = {"learning_rate": ("log_uniform", 1e-5, 1e-3), "num_layers": ("int", 2, 12)}


def test_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(blocks("Quick Start")[0], train_and_evaluate=objective)

    assert len(names["hpo"].trials) == 50
    assert set(names["best_params"]) == {"learning_rate", "batch_size", "embedding_dim", "num_reasoning_blocks"}
    for trial in names["hpo"].trials:
        assert 1e-5 <= trial.params["learning_rate"] <= 1e-3
        assert trial.params["batch_size"] in (4, 8, 16, 32)
        assert trial.params["embedding_dim"] in range(256, 1025, 128)
        assert trial.params["num_reasoning_blocks"] in range(4, 13)
    assert capsys.readouterr().out == f"Best parameters: {names['best_params']}\n"


def test_initialization_connects_to_nothing(tmp_path: Path) -> None:
    run(blocks("Initialization")[0])

    assert list(tmp_path.iterdir()) == []


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its own head; code marks and blanks removed."""
    text = GUIDE.read_text(encoding="utf-8")
    below = text[text.index(f"# {heading}\n") :]
    lines = below[below.index("\n|") :].lstrip("\n").split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in lines]


def test_every_default_is_the_guides() -> None:
    import inspect

    defaults = {name: p.default for name, p in inspect.signature(hn.HPOTrialManager).parameters.items()}
    for name, _, default, _ in table("Initialization"):
        if default == "required":
            assert defaults[name] is inspect.Parameter.empty
        else:
            assert repr(defaults[name]).replace("'", '"') == default


@pytest.mark.parametrize("sampler", [row[0] for row in table("Samplers")])
def test_every_sampler_of_the_guide_runs(sampler: str) -> None:
    hpo = hn.HPOTrialManager("guide", n_trials=12, sampler=sampler)

    hpo.optimize(lambda params: params["x"], {"x": ("int", 1, 20), "flag": ("categorical", [True, False])})

    assert len(hpo.trials) == 12


@pytest.mark.parametrize("pruner", [row[0] for row in table("Pruners")])
def test_every_pruner_of_the_guide_runs(pruner: str) -> None:
    hpo = hn.HPOTrialManager("guide", n_trials=3, pruner=pruner)

    def reporting(params: Params) -> float:
        hpo.report(params["x"], 0)
        hpo.should_prune()
        return float(params["x"])

    hpo.optimize(reporting, {"x": ("uniform", 0.0, 1.0)})

    assert len(hpo.trials) == 3


def test_every_parameter_type_is_sampled() -> None:
    space = run(blocks("Parameter Types")[0])["search_space"]
    hpo = hn.HPOTrialManager("guide", n_trials=30, sampler="random")

    hpo.optimize(lambda params: 0.0, space)

    for trial in hpo.trials:
        assert 0.0 <= trial.params["dropout"] <= 0.5
        assert trial.params["num_layers"] in range(2, 13)
        assert trial.params["hidden_dim"] in range(128, 1025, 64)
        assert trial.params["optimizer"] in ("adam", "sgd", "adamw")
        assert trial.params["use_dropout"] in (True, False)
        assert type(trial.params["use_dropout"]) is bool


def test_the_hsmn_space_is_the_packages_own() -> None:
    assert run(blocks("HSMN-Specific Parameters")[0])["hsmn_search_space"] == hn.hsmn_search_space


def test_basic_run() -> None:
    hpo = hn.HPOTrialManager("guide", n_trials=3)

    names = run(blocks("Basic Run")[0], hpo=hpo, objective=objective, search_space=SPACE)

    assert names["best_params"] == hpo.best_params


def test_callbacks(capsys: pytest.CaptureFixture[str]) -> None:
    hpo = hn.HPOTrialManager("guide", n_trials=3)

    run(blocks("With Callbacks")[0], hpo=hpo, objective=objective, search_space=SPACE)

    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [f"Trial {trial.number}: {trial.value:.4f}" for trial in hpo.trials]
    assert lines[1::2] == [f"  Params: {trial.params}" for trial in hpo.trials]


def test_resuming_adds_fifty_trials(tmp_path: Path) -> None:
    first = run(blocks("Initialization")[0])["hpo"]
    first.optimize(objective, SPACE, n_trials=3)

    resume = blocks("Resume Interrupted Study")[0]
    names = run(resume, HPOTrialManager=hn.HPOTrialManager, objective=objective, search_space=SPACE)

    assert len(names["hpo"].trials) == 53
    assert (tmp_path / "hpo.db").exists()


def test_results(capsys: pytest.CaptureFixture[str]) -> None:
    hpo = hn.HPOTrialManager("guide", n_trials=5)
    hpo.optimize(objective, SPACE)

    for heading in ("View Best Parameters", "Trial History", "Parameter Importance"):
        run(blocks(heading)[0], hpo=hpo)

    printed = capsys.readouterr().out
    assert f"Best value: {hpo.best_value}\nBest params: {hpo.best_params}\n" in printed
    assert "Trial 4:\n" in printed
    assert "  State: COMPLETE\n" in printed
    assert "  learning_rate: " in printed.split("State: COMPLETE")[-1]


@pytest.fixture(params=["postgres_url", "mysql_url"])
def served_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database of each kind of server that the guide names."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def mysql_url() -> Iterator[str]:
    if not mariadb.is_installed():
        pytest.skip(f"no {mariadb.SERVER} on PATH: install Debian's mariadb-server to run this on MySQL's dialect")
    with mariadb.running_mariadb() as url:
        yield url


def test_two_workers_join_one_study(served_url: str) -> None:
    code = blocks("Multi-Worker Setup")[0]
    address = "postgresql://user:pass@db:5432/optuna"
    assert code.count(address) == 2

    given = {"HPOTrialManager": hn.HPOTrialManager, "objective": objective, "search_space": SPACE}
    names = run(code.replace(address, served_url), **given)

    assert [trial.number for trial in names["hpo"].trials] == list(range(50))


@pytest.mark.parametrize("address", [row[1] for row in table("Database Requirements")])
def test_every_address_of_the_guide_is_accepted(address: str) -> None:
    assert normalise(address)
    hn.HPOTrialManager("guide", storage=address)


@pytest.mark.parametrize("heading", ["1. Start with Large Ranges", "2. Use Appropriate Scales"])
def test_the_ranges_that_it_recommends_are_valid(heading: str) -> None:
    for line in blocks(heading)[0].replace("...", "1e-5, 1e-3").splitlines():
        if line.startswith('"'):
            assert read_space(run(f"space = {{{line}}}")["space"])[1] == []


@pytest.mark.parametrize("heading", ["3. Enable Pruning", "4. Persist Results"])
def test_shortened_snippets_report_the_missing_argument(heading: str) -> None:
    with pytest.raises(TypeError, match="study_name"):
        run(blocks(heading)[0], HPOTrialManager=hn.HPOTrialManager)
