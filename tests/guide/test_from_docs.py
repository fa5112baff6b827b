"""The pages for people who come from elsewhere: their examples run as they stand, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.guide.blocks import run

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["from-optuna", "from-ray-tune", "from-keras-tuner"])
def test_the_example_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(code) == 1
    names = run(code[0])
    trials = names["hpo"].trials
    assert f"n_trials={len(trials)}" in code[0]
    assert names["best"] == names["hpo"].best_params
    assert {str(trial.state) for trial in trials} <= {"complete", "pruned", "COMPLETE", "PRUNED"}
