"""How the command line describes what a submission changed."""

from __future__ import annotations

from typing import Any

import pytest

from highnoon.coordinator.cli.submit_options import trials_in_words
from highnoon.shared.store.submission import Submission


@pytest.mark.parametrize(
    ("trials", "added", "asked", "words"),
    [
        (30, 30, None, "30 trials"),
        (1, 1, None, "1 trial"),
        (30, 10, 30, "30 trials, 10 added"),
        (30, 0, 10, "it has 30 trials already, and --n-trials counts all of them; none added"),
        (30, 0, None, "it has 30 trials already; none added"),
    ],
)
def test_fewer_trials_than_there_are_is_explained(trials: int, added: int, asked: int | None, words: str) -> None:
    nothing: Any = None
    submission = Submission(record=nothing, spec=nothing, trials=trials, added=added, joined=True)
    assert trials_in_words(submission, asked) == words
