"""A study whose stored specification is broken: its page is shown, and no page of another study suffers."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from highnoon.shared.domain.space import read_space
from highnoon.shared.domain.states import Ending, StudyState, TicketState
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


def page_of(study: StudySummary, **known: Any) -> str:
    nothing: dict[str, Any] = dict.fromkeys(
        (
            "best",
            "failure",
            "principal",
            "eta_s",
            "has_loss",
            "note",
            "points_left",
            "is_open",
            "csrf",
            "rendered_at",
            "message_key",
        )
    )
    empty: dict[str, Any] = dict.fromkeys(
        ("front", "front_formats", "formats", "running", "recent", "names", "objectives", "steps", "conditions"), ()
    )
    known = {"space": {}, "constraints": (), **known}
    page = _environment.get_template("study.html")
    return page.render(**nothing, **empty, study=study, most=10, may_steer=True, **known)


def test_page_of_a_study_with_a_broken_key_shows_its_fault() -> None:
    for key, value in product(SPEC, BROKEN):
        study = poisoned(key, value, fault="specification: it is broken")
        assert read_space(study.spec.get("search_space", {}))[0].keys() <= SPEC["search_space"].keys() | {"a"}
        shown = page_of(study, constraints=study.spec.get("param_constraints", ()))
        assert "specification: it is broken" in shown, (key, value)
        if key != "search_space":
            assert forms.form_of(study.full_spec, name="again").value("name") == "again"


def test_page_states_that_nothing_is_started_only_for_a_fault_that_holds_the_study_up() -> None:
    held = page_of(poisoned("timeout", None, fault="specification: it is broken"))
    assert ">Nothing of this study is started until its fault is corrected: specification: it is broken</p>" in held

    waits = page_of(poisoned("timeout", None, fault="plug-in sampler: it has ended"))
    assert ">Nothing of this study is started for a minute; then this is tried again: plug-in sampler: it" in waits

    declined = page_of(poisoned("timeout", None, fault="declined: ValueError: unreadable (node-a, 12:00:00)"))
    assert ">A worker cannot start its trials: ValueError: unreadable (node-a, 12:00:00)</p>" in declined
    assert "Nothing of this study" not in declined


@pytest.mark.parametrize("stopped", [0, 2])
def test_page_names_trials_that_a_person_has_stopped(stopped: int) -> None:
    counts = StudyCounts(
        by_state={TicketState.CLOSED: 8 + stopped, TicketState.WAITING: 2 - stopped},
        by_ending={Ending.COMPLETED: 7, Ending.FAILED: 1, Ending.CANCELLED: stopped},
    )
    study = poisoned("timeout", None, fault=None)
    assert study.record is not None
    shown = page_of(StudySummary.of_ledger(StudyProgress(record=study.record, counts=counts, best_value=0.5)))

    label = "10 of 10 trials have ended: 7 completed, 0 pruned, 1 failed, 2 stopped; 0 run"
    part = '<rect class="stopped" x="80.000" width="20.000" height="6"/>'
    fact = "Stopped</dt><dd>2</dd>"
    assert [text in shown for text in (label, part, fact)] == [stopped > 0] * 3
