"""Which objectives a worker may run: judged by where they would really come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective.allow_list import AllowList, allow, below, patterns_here
from highnoon.shared.runtime.settings import load_settings


def refusal(objective: str, code_dir: Path | None, *patterns: str) -> str | None:
    return AllowList(patterns=patterns).refusal(ObjectiveRef.parse(objective), code_dir)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A study's folder with a file, a package, and a link that leads out of it."""
    folder = tmp_path / "code"
    (folder / "mine").mkdir(parents=True)
    for name in ("train.py", "mine/__init__.py", "mine/model.py", "json.py"):
        (folder / name).write_text("def objective(params): return 0.0\n")
    (tmp_path / "secret.py").write_text("def objective(params): return 0.0\n")
    (folder / "link.py").symlink_to(tmp_path / "secret.py")
    return folder


def test_a_file_is_judged_by_its_whole_path(code: Path) -> None:
    pattern = f"{code}/*.py"
    assert refusal("train.py:objective", code, pattern) is None
    assert refusal(f"{code}/train.py:objective", None, pattern) is None
    assert refusal("train.py:objective", code, f"{code}/*.py:objective") is None
    assert refusal("train.py:other", code, f"{code}/*.py:objective") is not None
    assert refusal("train.py:objective", code) is not None, "no pattern allows nothing"


def test_dots_and_links_do_not_lead_out(code: Path) -> None:
    pattern = f"{code}/*.py"
    assert refusal("../secret.py:objective", code, pattern) is not None
    assert refusal("mine/../../secret.py:objective", code, pattern) is not None
    assert refusal("link.py:objective", code, pattern) is not None
    assert refusal("mine/../train.py:objective", code, pattern) is None


def test_a_pattern_may_name_its_folder_by_a_link(code: Path, tmp_path: Path) -> None:
    (tmp_path / "srv").symlink_to(code)
    assert refusal("train.py:objective", code, f"{tmp_path}/srv/*.py") is None
    assert refusal("train.py:objective", tmp_path / "srv", f"{code}/*.py") is None


def test_a_module_of_the_interpreter_goes_by_its_name() -> None:
    assert refusal("json.tool:main", None, "json.*") is None
    assert refusal("json.tool:main", None, "json.*:main") is None
    assert refusal("json.tool:main", None, "json.*:other", "os") is not None
    assert refusal("os:system", None, "json.*") is not None


def test_a_module_that_the_study_brings_goes_by_its_file(code: Path) -> None:
    assert refusal("mine.model:objective", code, "mine.*") is not None, "any folder could bring a mine.model"
    assert refusal("mine.model:objective", code, f"{code}/*.py") is None


def test_a_study_cannot_bring_its_own_json_under_a_name_that_is_covered(code: Path) -> None:
    said = refusal("json:objective", code, "json")
    assert said is not None and f"{code}/json.py" in said
    assert refusal("json:objective", code, f"{code}/*.py") is not None, "the interpreter's own would be run"
    assert refusal("json:objective", code, "json", f"{code}/*.py") is None


def test_a_folder_on_the_path_is_the_interpreters(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(code)])
    assert refusal("mine.model:objective", code, "mine.*") is None


def test_a_refusal_names_objective_list_and_remedy(code: Path) -> None:
    said = refusal("train.py:objective", code, "recipes.*", "/srv/*.py")
    assert said is not None
    assert f"{code}/train.py:objective" in said and "recipes.*, /srv/*.py" in said and "HIGHNOON_OBJECTIVES" in said


def test_everything_may_be_allowed_and_is_judged_without_a_look_at_the_disk() -> None:
    assert refusal("/nowhere/train.py:objective", None, "*") is None
    assert refusal("no.such.module:objective", None, "*") is None


def test_a_colon_or_wild_card_in_a_folders_name_is_only_a_letter(tmp_path: Path) -> None:
    for name in ("a:b", "a[b]", "a*b"):
        folder = tmp_path / name
        folder.mkdir()
        assert refusal("t.py:f", folder, below(folder)) is None
    assert refusal("t.py:f", tmp_path / "aXb", below(tmp_path / "a*b")) is not None


def test_on_one_machine_what_its_person_starts_is_noted_once(code: Path, tmp_path: Path) -> None:
    settings = load_settings({}, home=tmp_path / "home")
    assert patterns_here(settings) is None
    allow(settings)
    assert patterns_here(settings) == ()
    for _ in range(2):
        allow(settings, ObjectiveRef.parse("train.py:objective"), code)
    assert patterns_here(settings) == (below(code),)
    allow(settings, ObjectiveRef.parse("json.tool:main"), code)
    assert patterns_here(settings) == (below(code), "json.tool")
    assert (tmp_path / "home" / "objectives").stat().st_mode & 0o777 == 0o600


def test_a_list_that_was_set_replaces_what_is_noted(tmp_path: Path) -> None:
    allow(load_settings({}, home=tmp_path), ObjectiveRef.parse("recipes:objective"))
    settings = load_settings({"HIGHNOON_OBJECTIVES": " /srv/*.py , recipes.*,"}, home=tmp_path)
    assert patterns_here(settings) == ("/srv/*.py", "recipes.*")
