"""The work of the comparison as objectives of HighNoon."""

from __future__ import annotations

from work import WORK

import highnoon as hn


def _report(value: float, step: int) -> bool:
    hn.report(value, step)
    return not hn.should_prune()


def noop(params: hn.Params) -> float:
    """As its namesake in `work`; so are the others."""
    return WORK["noop"](params, _report)


def small_keras(params: hn.Params) -> float:
    """As above."""
    return WORK["small_keras"](params, _report)


def one_second(params: hn.Params) -> float:
    """As above."""
    return WORK["one_second"](params, _report)


def ten_seconds(params: hn.Params) -> float:
    """As above."""
    return WORK["ten_seconds"](params, _report)


def hundred_reports(params: hn.Params) -> float:
    """As above."""
    return WORK["hundred_reports"](params, _report)
