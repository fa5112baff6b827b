"""`submit --wait --callback`: what is named is imported, and every mistake in a name is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from highnoon.coordinator.cli.run import submit
from highnoon.coordinator.cli.submit_options import callbacks_named
from highnoon.shared.domain.errors import InvalidInput

CALLBACKS = """
heard = []
log = heard.append
number = 3


def on_trial_complete(study, trial):
    heard.append(trial)
"""


@pytest.fixture(autouse=True)
def _beside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CALLBACKS)


def test_functions_and_objects_are_imported_by_name() -> None:
    found = callbacks_named(["mine.py:on_trial_complete", "mine.py:log"])

    names = [getattr(one, "__name__", "") for one in found]
    assert names == ["on_trial_complete", "append"]


def test_every_mistake_is_reported_at_once() -> None:
    names = ["mine.py", "no.py:f", "mine.py:on_trial_complet", "mine.py:number"]

    with pytest.raises(InvalidInput) as said:
        callbacks_named(names)

    assert [problem.key for problem in said.value.problems] == ["--callback"] * 4
    text = str(said.value)
    assert "there is no file no.py" in text
    assert "Did you mean on_trial_complete?" in text
    assert "number in mine.py is not callable" in text


def test_callbacks_without_wait_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"--callback: is called only while the command waits .* Add --wait\."):
        submit(Path("study.toml"), callback=["mine.py:log"])
