"""The trials of `benchmarks.peers.throughput` as objectives of HighNoon; `work` describes each."""

from __future__ import annotations

from typing import Any

from work import WORK

import highnoon as hn

Params = dict[str, Any]


def _report(value: float, step: int) -> bool:
    hn.report(value, step)
    return not hn.should_prune()


def noop(params: Params) -> float:
    """`work.noop`."""
    return float(WORK["noop"](params, _report))


def small_keras(params: Params) -> float:
    """`work.small_keras`."""
    return float(WORK["small_keras"](params, _report))


def one_second(params: Params) -> float:
    """`work.one_second`."""
    return float(WORK["one_second"](params, _report))


def ten_seconds(params: Params) -> float:
    """`work.ten_seconds`."""
    return float(WORK["ten_seconds"](params, _report))


def hundred_reports(params: Params) -> float:
    """`work.hundred_reports`."""
    return float(WORK["hundred_reports"](params, _report))
