"""The examples as a newcomer runs them: real data, real training, nothing set up before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from highnoon.shared.objective.study_file import load_study_file

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_digits_study_file_is_valid() -> None:
    spec = load_study_file(EXAMPLES / "digits" / "study.toml")

    assert (spec.name, spec.n_trials) == ("digits", 20)
    assert len(spec.search_space) >= 5


@pytest.mark.timeout(300)
def test_the_quickstart_finds_a_good_model(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py")],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    reached = [float(accuracy) for accuracy in re.findall(r"best val_loss=\S+ val_accuracy=(\S+)", done.stdout)]
    assert max(reached) >= 0.95
    assert re.search(r"^Best parameters: \{'learning_rate'", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
