"""The trials of a chaos run: four steps with a report each, a scratch file, and a value known before."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import highnoon as hn

STEP_S = "TEST_CHAOS_STEP_S"
"""How long the shortest of four steps takes: a longer run of the same trials has room for more faults."""


def value_of(x: float) -> float:
    """What a trial at this point must be counted with."""
    return (x - 2.0) ** 2


def trial(params: dict[str, Any]) -> float:
    x = float(params["x"])
    with suppress(OSError):  # a full disk is a fault of its own kind
        Path(os.environ["TMPDIR"], "scratch").write_bytes(b"x" * 100_000)
    for step in range(4):
        time.sleep(float(os.environ.get(STEP_S, "0.03")) + 0.02 * abs(x))
        hn.report(x + step, step)
    return value_of(x)
