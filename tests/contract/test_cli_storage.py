"""Commands that read, on a database of Optuna's that no coordinator has ever seen."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

import highnoon as hn
from highnoon.shared.domain.errors import EveryTrialFailed
from highnoon.shared.runtime.terminal import Exit
from tests.command import Answer, caller

Call = Callable[..., Answer]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Commands with `--storage` on a file with a study of one objective, one of two, and an empty one."""
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///hpo.db"
    one = optuna.create_study(storage=url, study_name="one")
    one.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    goals = optuna.create_study(storage=url, study_name="goals", directions=["minimize", "maximize"])
    goals.optimize(lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_int("k", 1, 5)), n_trials=12)
    optuna.create_study(storage=url, study_name="empty", direction="maximize")
    asked = caller(monkeypatch, capsys)
    capsys.readouterr()
    return lambda *arguments: asked(*arguments, "--storage", url)


def test_lists_every_study_and_finds_each_by_its_name(call: Call) -> None:
    listed = call("list")
    assert [line.split()[:3] for line in listed.out.splitlines()[1:]] == [
        ["one", "external", "4/4"], ["goals", "external", "12/12"], ["empty", "external", "0/0"],
    ]  # fmt: skip
    assert json.loads(call("status", "goals", "--json").out)["direction"] == "minimize, maximize"
    unknown = call("status", "gaols")
    assert unknown.code == Exit.USER_INPUT and "Did you mean goals?" in unknown.err


def test_the_best_of_several_objectives_is_a_front(call: Call) -> None:
    front = json.loads(call("best", "goals", "--json").out)
    best = {trial.number for trial in optuna.load_study(study_name="goals", storage="sqlite:///hpo.db").best_trials}
    assert {trial["number"] for trial in front} == best
    assert all(trial["values"] == [trial["params"]["x"], trial["params"]["k"]] for trial in front)
    assert call("best", "goals").out.startswith(f"{len(best)} trial")
    refused = call("best", "goals", "--format", "toml")
    assert refused.code == Exit.USER_INPUT and "this study has several objectives" in refused.err
    assert call("best", "one").out.startswith("trial ")
    assert call("best", "empty").code == Exit.NO_RESULT


def test_trials_figures_and_shares_of_any_study(call: Call, tmp_path: Path) -> None:
    assert len(call("trials", "goals", "--sort", "x").out.splitlines()) == 13
    assert "share" in call("importance", "goals").out
    for study, kind in (("goals", "history"), ("one", "slice"), ("one", "outcomes")):
        assert call("plot", study, "--kind", kind).out == f"wrote {study}-{kind}.html\n"
    contour = call("plot", "one", "--kind", "contour")
    assert contour.code == Exit.USER_INPUT
    assert "--kind: needs two parameters, and study one has one (got 'contour')" in contour.err
    assert call("compare", "one", "goals").out.endswith("a study has several objectives\n")


def test_trials_say_why_they_failed(call: Call) -> None:
    hpo = hn.HPOTrialManager("fails", n_trials=2, storage="sqlite:///hpo.db")
    with pytest.raises(EveryTrialFailed):
        hpo.optimize(lambda params: 1 / 0, {"x": ("uniform", 0, 1)})
    first, *_ = call("trials", "fails").out.splitlines()[1:]
    assert first.endswith("exception: ZeroDivisionError: division by zero")


def test_exports_all_trials_with_a_column_for_each_objective(call: Call, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(call("export", "goals").out)))
    assert len(rows) == 12 and all(row["values.1"] == f"{float(row['params.k'])}" for row in rows)
    assert call("export", "one", "-o", "one.jsonl").out == "wrote 4 trials to one.jsonl\n"
    assert [json.loads(line)["number"] for line in (tmp_path / "one.jsonl").read_text().splitlines()] == [0, 1, 2, 3]
    for arguments, why in (
        (("-o", "one.xls"), "is no format of trials (got 'one.xls'). Valid: csv, jsonl, parquet."),
        (("--format", "parquet"), "--output: is needed for parquet"),
        (("-o", "no/one.csv"), "lies in a folder that does not exist"),
    ):
        refused = call("export", "one", *arguments)
        assert refused.code == Exit.USER_INPUT and why in refused.err


def test_a_file_that_is_only_read_stays_as_it_is(call: Call, tmp_path: Path) -> None:
    before = (tmp_path / "hpo.db").read_bytes()
    for command in (("list",), ("best", "one"), ("trials", "goals"), ("export", "goals")):
        assert call(*command).code == Exit.OK
    assert (tmp_path / "hpo.db").read_bytes() == before


@pytest.mark.parametrize(
    ("storage", "why"),
    [
        ("sqlite:///nowhere.db", "--storage: there is no such file (got 'sqlite:///nowhere.db')"),
        ("hpo.db", "Did you mean sqlite:///hpo.db?"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_and_makes_no_file(
    storage: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = caller(monkeypatch, capsys)("list", "--storage", storage)
    assert answer.code == Exit.USER_INPUT and why in answer.err
    assert list(tmp_path.iterdir()) == []
