"""A study whose stored specification is broken: its page is shown, and no page of another study suffers."""

from __future__ import annotations

from itertools import product
from typing import Any

from highnoon.shared.domain.space import read_space
from highnoon.shared.domain.states import StudyState
from highnoon.shared.store.queries import StudyProgress
from highnoon.shared.store.study_records import StudyCounts, StudyRecord
from highnoon.shared.views.studies import StudySummary, study_object
from highnoon.webui import forms
from highnoon.webui.actions import ObjectiveFilter
from highnoon.webui.rendering import _environment
from tests.made_up import spec_of

SPEC = spec_of("digits").to_json()
BROKEN: list[Any] = [None, 3, "x", [], {}, [["a"]], {"a": {"b": [1]}}, True, float("inf")]


def poisoned(key: str, value: object, fault: str | None) -> StudySummary:
    record = StudyRecord(
        id=1,
        name="digits",
        state=StudyState.RUNNING,
        stop_reason=None,
        queue="cpu",
        spec={**SPEC, key: value},
        submitted_at=1e9,
        started_at=None,
        ended_at=None,
        fault=fault,
    )
    return StudySummary.of_ledger(StudyProgress(record=record, counts=StudyCounts(), best_value=None))


def test_list_and_form_of_new_studies_bear_a_study_with_a_broken_key() -> None:
    allowed = ObjectiveFilter(patterns=(), folders_too=True)
    for key, value in product(SPEC, BROKEN):
        study = poisoned(key, value, fault=None)  # before a coordinator has looked at it
        assert study_object(study)["name"] == "digits"
        assert allowed.refusals({"objective": "elsewhere.py:train", "code_dir": "/nowhere"}, [study]), (key, value)


def test_page_of_a_study_with_a_broken_key_shows_its_fault() -> None:
    page = _environment.get_template("study.html")
    nothing: dict[str, Any] = dict.fromkeys(
        ("best", "failure", "principal", "eta_s", "has_loss", "note", "is_open", "csrf", "rendered_at", "message_key")
    )
    empty: dict[str, Any] = dict.fromkeys(
        ("front", "front_formats", "formats", "running", "recent", "names", "objectives", "steps", "conditions"), ()
    )
    for key, value in product(SPEC, BROKEN):
        study = poisoned(key, value, fault="specification: it is broken")
        assert read_space(study.spec.get("search_space", {}))[0].keys() <= SPEC["search_space"].keys() | {"a"}
        constraints = study.spec.get("param_constraints", ())
        shown = page.render(**nothing, **empty, study=study, space={}, constraints=constraints, most=10, may_steer=True)
        assert "specification: it is broken" in shown, (key, value)
        if key != "search_space":
            assert forms.form_of(study.full_spec, name="again").value("name") == "again"
