"""The short form of a chaos run. `make chaos` is the long one."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos.run import run

SEED = 1
"""Always the same in the suite, so that a failure is one of the change at hand. `make chaos` draws new ones."""


def test_books_balance_after_random_faults(tmp_path: Path) -> None:
    seed = int(os.environ.get("TEST_CHAOS_SEED") or SEED)
    report = run(seed, tmp_path, trials=90, faults=14, limit_s=450.0, every_s=(0.3, 1.5))
    print(report.text())
    assert not report.wrong, f"replay with TEST_CHAOS_SEED={seed}:\n{report.text()}"
