"""The handle of a study follows its cluster: to another address, and to another study of its name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from highnoon import handle as module
from highnoon.handle import StudyHandle
from highnoon.handle_view import counts_line
from highnoon.shared.views.studies import StudySummary


class FakeAccess:
    """Counts nothing, keeps nothing: the next one may well be at its place in memory."""

    record = SimpleNamespace(id=1, spec_version=1)

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = SimpleNamespace(check_schema=lambda: None)
        self.studies = SimpleNamespace(get=lambda name: self.record)

    def optuna(self, record: Any) -> str:
        return f"{self.url}, study {record.id}"

    def close(self) -> None: ...


def test_a_study_is_opened_again_at_a_new_address_and_for_a_new_study_of_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "Access", FakeAccess)
    cluster: Any = SimpleNamespace(url="first")
    handle = StudyHandle("digits", cluster)
    assert handle._results() == "first, study 1"  # type: ignore[comparison-overlap]
    for number in range(20):
        cluster.url = f"restarted {number}"
        assert handle._results() == f"restarted {number}, study 1"  # type: ignore[comparison-overlap]
    monkeypatch.setattr(FakeAccess, "record", SimpleNamespace(id=2, spec_version=1))
    assert handle._results() == "restarted 19, study 2"  # type: ignore[comparison-overlap]


def test_trials_that_a_person_has_stopped_are_named_in_the_line_of_counts() -> None:
    counts = {"total": 10, "complete": 7, "pruned": 0, "failed": 1, "running": 0, "waiting": 0}
    study = StudySummary(name="digits", direction="minimize", best=0.5, closed=10, **counts)
    assert counts_line(study) == "best 0.5  7 complete  1 failed  2 stopped"
