"""The handle of a study follows its cluster: to another address, and to another study of its name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from highnoon import handle as module
from highnoon.handle import StudyHandle


class FakeAccess:
    """Counts nothing, keeps nothing: the next one may well be at its place in memory."""

    record = SimpleNamespace(id=1, spec_version=1)

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = SimpleNamespace(check_schema=lambda: None)

    def study(self, name: str) -> Any:
        return self.record

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
