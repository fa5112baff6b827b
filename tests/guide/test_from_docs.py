"""Pages for people who begin or come from elsewhere: their examples run as they stand, in an empty folder."""

from __future__ import annotations

import re
import runpy
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import highnoon as hn
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.space import parse_param
from highnoon.shared.objective.study_file import load_study_file
from tests.guide.blocks import run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["from-optuna", "from-ray-tune", "from-keras-tuner"])
def test_the_example_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(code) == (2 if page == "from-optuna" else 1)
    for block in code:
        names = run(block)
        trials = names["hpo"].trials
        assert f"n_trials={len(trials)}" in block
        assert names["best"] == names["hpo"].best_params
        assert {str(trial.state) for trial in trials} <= {"complete", "pruned", "COMPLETE", "PRUNED"}


def test_the_example_of_the_frameworks_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "frameworks.md").read_text(), re.MULTILINE | re.DOTALL)
    names = run(code)
    assert names["best"] == names["hpo"].best_params and names["hpo"].best_trial.metrics.keys() >= {"loss", "val_loss"}
    assert 0.5 < names["scores"].best_value <= 1.0
    page = (DOCS / "frameworks.md").read_text()
    assert all(name in page for name in hn.callbacks.__all__ if name.endswith("Report"))


def test_the_page_about_searching_runs(tmp_path: Path) -> None:
    page = (DOCS / "search.md").read_text()
    study, code = (
        re.search(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) for language in ("toml", "python")
    )
    assert study is not None and code is not None
    names = run(code[1])
    assert names["best"] == names["hpo"].best_params and 12 < len(names["hpo"].trials) <= 24
    several = re.findall(r"^```(toml|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    several = [block for block in several if "objectives" in block[1]]
    assert [language for language, _ in several] == ["toml", "python"]
    names = run(several[1][1])
    assert len(names["hpo"].best_trials) > 2 and all(trial.values[1] <= 20 for trial in names["hpo"].best_trials)
    (tmp_path / "train.py").write_text("def objective(params):\n    return 1.0, 2.0\n")
    (tmp_path / "study.toml").write_text(several[0][1])
    assert load_study_file(tmp_path / "study.toml", {}).prune_on == "loss"
    (tmp_path / "train.py").write_text(code[1].partition("hpo = ")[0])
    (tmp_path / "study.toml").write_text(study[1])
    assert load_study_file(tmp_path / "study.toml", {}).sampler.name == "auto"


def test_the_examples_of_an_own_sampler_and_of_repeats_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "search.md").read_text(), re.MULTILINE | re.DOTALL)
    own, repeats = (next(block for block in blocks if word in block) for word in ("own-sampler", "repeats="))
    assert 0.0 <= run(own)["best"]["x"] <= 9.0
    metrics = run(repeats)["hpo"].best_trial.metrics
    assert metrics["repeats"] == 3 and metrics["repeats_std"] > 0


def test_every_sampler_pruner_and_option_is_on_the_page() -> None:
    page = (DOCS / "search.md").read_text()
    for kinds in (SamplerSpec.kinds, PrunerSpec.kinds):
        for name, options in kinds.items():
            assert f"`{name}`" in page
            assert [option for option in options.model_fields if f"`{option}" not in page] == [], name


def test_the_first_study_of_a_beginner(tmp_path: Path) -> None:
    page = (DOCS / "getting-started.md").read_text()
    written = {
        language: re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        for language in ("python", "toml")
    }
    (tmp_path / "train.py").write_text(written["python"][0])
    (tmp_path / "study.toml").write_text(written["toml"][0])
    spec = load_study_file(tmp_path / "study.toml", {})
    objective = run(written["python"][0])["objective"]

    hpo = hn.HPOTrialManager(spec.name, n_trials=spec.n_trials)
    best = hpo.optimize(objective, {"learning_rate": ("log_uniform", 1e-3, 0.5), "penalty": ("uniform", 0.0, 1.0)})

    assert set(best) == set(spec.search_space)
    assert len(hpo.trials) == 12


def test_the_examples_of_artifacts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "artifacts.md").read_text()
    saving, resuming, longer = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)

    manager = run(saving)["manager"]
    assert len(manager.artifacts()) == 3 and len(list((tmp_path / "models").iterdir())) == 3
    assert (tmp_path / "best" / "model.txt").read_text() == f"x = {manager.best_params['x']}\n"

    resumed = hn.HPOTrialManager("resumed", n_trials=1)
    resumed.optimize(run(resuming)["objective"], {"x": ("uniform", 0.5, 0.5001)})
    assert [report.step for report in resumed.best_trial.reports] == [1, 2, 3, 4, 5]

    longest = hn.HPOTrialManager("longest", n_trials=1)
    longest.optimize(run(f"{resuming}\n{longer}")["objective_that_trains_longer"], {"x": ("uniform", 0.5, 0.5001)})
    assert [report.step for report in longest.best_trial.reports] == [1, 2, 3, 4, 5]


def test_the_examples_of_local_trials_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "python.md").read_text().partition("## On a cluster")[0]
    code = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    first, metrics, *_ = [run(block, hn=hn) for block in code]
    assert first["best"] == {"x": 0.0, "decay": 1e-3} and len(first["hpo"].trials) == 12
    assert metrics["hpo"].best_trial.metrics == {"accuracy": 0.92, "f1": 0.8}


def test_search_spaces_run_as_they_are_written(tmp_path: Path) -> None:
    page = (DOCS / "search-spaces.md").read_text()
    run("\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)))
    (written,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "study.toml").write_text(written)
    (tmp_path / "train.py").write_text("def objective(params):\n    return 0.0\n")
    spec = load_study_file(tmp_path / "study.toml", {})
    assert spec.search_space["momentum"].when == {"optimizer": ("sgd",)}
    # And each row of the table reads as the same parameter, however it is written.
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| `hn.")]
    assert len(rows) == 7
    for row in rows:
        python, listed, table = (cell.strip().strip("`") for cell in row)
        forms = [run(f"x = {python}", hn=hn)["x"], *(tomllib.loads(f"x = {text}")["x"] for text in (listed, table))]
        assert len({repr(parse_param("x", form)) for form in forms}) == 1


def test_the_readmes_study_runs_in_python_and_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS.parent / "README.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    names = run(code, __name__="__main__")
    assert len(names["hpo"].trials) == 12 and set(names["best"]) == {"learning_rate", "dropout"}

    (tmp_path / "train.py").write_text(code)
    assert "hpo" not in runpy.run_path(str(tmp_path / "train.py"), run_name="train"), "a worker's import runs no study"
    (tmp_path / "study.toml").write_text(re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0])
    spec = load_study_file(tmp_path / "study.toml")
    assert set(spec.search_space) == set(names["best"])


def test_pages_for_beginners_name_their_studies_differently() -> None:
    pages = [(DOCS.parent / "README.md").read_text(), (DOCS / "getting-started.md").read_text()]
    names = [re.findall(r'^name = "(.+)"$', page, re.MULTILINE) for page in pages]
    assert len({*names[0], *names[1]}) == 2, "one folder may hold both"


def test_the_example_of_the_study_file_page_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", (DOCS / "study-file.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "train.py").write_text("def objective(params): ...")
    (tmp_path / "study.toml").write_text(text)
    assert "model.heads" in load_study_file(tmp_path / "study.toml").search_space


def test_the_python_reference_is_what_the_docstrings_say() -> None:
    spec = spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = module_from_spec(spec)
    spec.loader.exec_module(generate)
    written = (DOCS / "python-api.md").read_text()
    assert written == generate.python_api(), "python docs/generate.py writes it again"
    assert all(f"## {name}\n" in written for name in ("HPOTrialManager", "Trainer", "report", "TrialPruned"))
