"""Which objectives may be started from a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from highnoon.shared.domain.states import StudyState
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.views.studies import StudySummary
from highnoon.webui.actions import ObjectiveFilter


def study(objective: str, code_dir: str | None = None, **more: Any) -> StudySummary:
    spec = {"objective": objective, "code_dir": code_dir, **more}
    record = StudyRecord(
        id=1, name="known", state=StudyState.RUNNING, stop_reason=None, queue="cpu", spec=spec,
        submitted_at=0.0, started_at=None, ended_at=None,
    )  # fmt: skip
    counts = dict.fromkeys(("total", "complete", "pruned", "failed", "running", "waiting"), 0)
    return StudySummary(name="known", direction="minimize", best=None, record=record, **counts)


def allowed(
    objective: str, code_dir: str | None, studies: list[StudySummary], *patterns: str, folders: bool = False
) -> bool:
    judge = ObjectiveFilter(patterns=patterns, folders_too=folders)
    return not judge.refusals({"objective": objective, "code_dir": code_dir}, studies)


def test_what_was_started_may_be_started_again_and_nothing_else(tmp_path: Path) -> None:
    known = [study("train.py:objective", str(tmp_path)), study("recipes.digits:objective")]

    assert allowed("train.py:objective", str(tmp_path), known)
    assert allowed(f"{tmp_path}/train.py:objective", None, known)
    assert allowed("recipes.digits:objective", None, known)
    assert not allowed("train.py:other", str(tmp_path), known)
    assert not allowed("other.py:objective", str(tmp_path), known)
    assert not allowed("os:system", None, known)
    assert not allowed("os:system", None, [])


def test_on_one_machine_the_folders_of_known_studies_are_open(tmp_path: Path) -> None:
    known = [study("train.py:objective", str(tmp_path / "mine"))]

    assert allowed("other.py:objective", str(tmp_path / "mine"), known, folders=True)
    assert not allowed("../theirs/other.py:objective", str(tmp_path / "mine"), known, folders=True)
    assert not allowed("other.py:objective", str(tmp_path), known, folders=True)
    assert not allowed("os:system", None, known, folders=True)


def test_patterns_say_it_all(tmp_path: Path) -> None:
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok" / "link.py").symlink_to("/etc/passwd")
    pattern = f"{tmp_path}/ok/*.py:*"

    assert allowed("a.py:f", f"{tmp_path}/ok", [], pattern)
    assert not allowed("../a.py:f", f"{tmp_path}/ok", [], pattern)
    assert not allowed("link.py:f", f"{tmp_path}/ok", [], pattern)
    assert allowed("recipes.digits:objective", None, [], pattern, "recipes.*:objective")
    assert not allowed("known:objective", None, [study("known:objective")], pattern)


@pytest.mark.parametrize("name", ["a*b", "a[b]", "a?b"])
def test_a_folder_with_wild_cards_in_its_name_opens_no_other(name: str, tmp_path: Path) -> None:
    known = [study("t.py:f", f"{tmp_path}/{name}")]
    assert allowed("t.py:f", f"{tmp_path}/{name}", known)
    assert not allowed("t.py:f", f"{tmp_path}/axb", known) and not allowed("t.py:f", f"{tmp_path}/ab", known)


def test_a_refusal_names_what_is_near() -> None:
    judge = ObjectiveFilter(patterns=(), folders_too=False)
    (problem,) = judge.refusals({"objective": "recipes.digit:objective"}, [study("recipes.digits:objective")])
    assert "Did you mean recipes.digits:objective?" in problem.hint


@pytest.mark.parametrize("key", ["sampler", "pruner"])
def test_a_class_that_samples_or_prunes_is_judged_as_an_objective_is(key: str, tmp_path: Path) -> None:
    known = [study("train.py:objective", str(tmp_path), **{key: {"name": "own.py:Mine", "reach": 3}})]
    asked = {"objective": "train.py:objective", "code_dir": str(tmp_path)}
    judge = ObjectiveFilter(patterns=(), folders_too=False)

    for name in ("own.py:Mine", f"{tmp_path}/own.py:Mine", "tpe", "median", "no grammar:", 7):
        for given in (name, {"name": name}, {"name": name, "options": {}}):
            assert judge.refusals({**asked, key: given}, known) == []
    for name in ("other.py:Mine", "own.py:Other", "/etc/passwd.py:f", "os:system"):
        for given in (name, {"name": name}, {"name": name, "options": {}}):
            (problem,) = judge.refusals({**asked, key: given}, known)
            assert (problem.key, problem.value) == (key, name)
            assert [one.key for one in judge.refusals({**asked, "objective": "os:system", key: given}, known)] == [
                "objective",
                key,
            ]
            # Also where the objective is none
            assert [one.key for one in judge.refusals({"objective": "train", key: given}, known)] == [key]
    open_folder = ObjectiveFilter(patterns=(), folders_too=True)
    assert open_folder.refusals({**asked, key: "other.py:Mine"}, known) == []
