"""The trials of the comparison, for every program the same: what is done, and what is reported. Standard library only.

Each takes the parameters and a function that reports (value, step) and says whether to go on; it returns the loss.
"""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Params = dict[str, Any]
Report = Callable[[float, int], bool]
SPACE = {f"x{index}": (0.0, 1.0) for index in range(5)}
"""Uniform ranges."""


def noop(params: Params, report: Report) -> float:
    """Nothing: what the program itself costs."""
    return float(params["x0"])


def small_keras(params: Params, report: Report) -> float:
    """Two epochs of a small dense network on 512 random rows."""
    return float(runpy.run_path(str(Path(__file__).parents[1] / "objectives.py"))["small_keras"](params))


def one_second(params: Params, report: Report) -> float:
    """A training of one second."""
    time.sleep(1.0)
    return float(params["x0"])


def ten_seconds(params: Params, report: Report) -> float:
    """A training of ten seconds."""
    time.sleep(10.0)
    return float(params["x0"])


def hundred_reports(params: Params, report: Report) -> float:
    """A training of one second in a hundred steps, each of which reports and asks whether to go on."""
    for step in range(100):
        time.sleep(0.01)
        if not report(float(params["x0"]) + 1 / (1 + step), step):
            break
    return float(params["x0"])


WORK = {work.__name__: work for work in (noop, small_keras, one_second, ten_seconds, hundred_reports)}
