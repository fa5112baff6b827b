"""The process of a local trial: how it ended is known also after it was asked several times."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from highnoon.local.process import Launcher, Task
from highnoon.shared.domain.memory_sizes import MemoryWishes
from highnoon.shared.domain.score import Scoring
from highnoon.shared.objective.repetition import Repeats
from tests.support import eventually


def leaves(params: dict[str, Any]) -> float:
    os._exit(3)


@pytest.mark.parametrize("spawn", [False, True], ids=["fork", "spawn"])
def test_the_first_status_stays(spawn: bool) -> None:
    task = Task(
        number=0,
        params={},
        defines_by_run=False,
        study_name="digits",
        scoring=Scoring(direction="minimize"),
        memory=MemoryWishes(),
        repeats=Repeats(seed=1),
        saved=Path("unused"),
    )
    process = Launcher(leaves, spawn=spawn).start(task)
    eventually(lambda: process.poll() is not None, 30, what="it has ended")
    assert process.poll() == 3
    assert process.end() == 3
