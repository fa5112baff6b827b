"""The short form of a chaos run. `make chaos` is the long one."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.chaos.run import run


def test_books_balance_after_random_faults(tmp_path: Path) -> None:
    seed = int(os.environ.get("TEST_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    report = run(seed, tmp_path, trials=90, faults=14, limit_s=180.0)
    print(report.text())
    assert not report.wrong, f"replay with TEST_CHAOS_SEED={seed}:\n{report.text()}"
