"""The guide's Complete Example, word for word: real models, real text, losses that fall.

HIGHNOON_REHEARSAL makes it small, as its documentation tells every user to do before a long run.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from pathlib import Path

import pytest

from tests.guide.blocks import GUIDE, blocks, run

DOCS = Path(__file__).parents[2] / "docs" / "hpo-guide.md"


@pytest.fixture(autouse=True)
def _a_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")


def test_complete_example(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="highnoon")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        names = run(blocks("Complete Example")[0])

    hpo, best = names["hpo"], names["best_params"]
    losses = [[float(loss) for loss in losses] for losses in trainings(caplog.messages)]
    assert [len(of_one) for of_one in losses] == [3, 3, 10], "two trials of three epochs, and the final training"
    for of_one in losses:
        assert all(map(math.isfinite, of_one))
        assert of_one == sorted(of_one, reverse=True)
        assert of_one[0] > of_one[-1]
    values = [trial.value for trial in hpo.trials]
    assert values == pytest.approx([of_one[-1] for of_one in losses[:-1]], rel=1e-5)
    assert set(best) == {"learning_rate", "batch_size", "embedding_dim", "num_blocks", "num_experts"}
    printed = capsys.readouterr().out
    assert f"Best validation loss: {min(values):.4f}\nBest parameters:\n  " in printed
    assert printed.endswith("\nTraining final model with best parameters...\n")
    assert not (tmp_path / "hpo_study.db").exists(), "a rehearsal stores nothing"
    assert (tmp_path / "best_model" / "rehearsal" / "latest" / "model.weights.h5").exists()
    ours = [str(warning.message).split(":")[0] for warning in said if warning.category is UserWarning]
    assert ours == ["there is no dataset 'train_subset'"] * 2 + ["no curriculum stage was added"]


def trainings(messages: list[str]) -> list[list[str]]:
    """The validation losses of each training, epoch by epoch."""
    found: list[list[str]] = []
    for message in messages:
        if match := re.match(r"action=epoch .*epoch=(\d+) .*val_loss=(\S+)", message):
            if match[1] == "0":
                found.append([])
            found[-1].append(match[2])
    return found


def test_the_page_in_the_docs_has_the_guides_text() -> None:
    assert DOCS.read_text(encoding="utf-8").startswith(GUIDE.read_text(encoding="utf-8").rstrip())
