"""The curves of logged metrics: for each a bounded series of (step, value). Values and their limits; no I/O.

A metric is a curve from its second value on. Of a long training every second, fourth, ... value is kept, and always the
newest. Infinity and NaN are text, as in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from highnoon.shared.domain.result_parsing import LARGEST_STEP, can_name
from highnoon.shared.domain.trial import MetricHistory, json_number

METRIC_HISTORY = "highnoon:metric_history"
"""Optuna's system attribute of a trial that no ledger knows: what `history_text` gives."""

MOST_METRICS = 30
"""Curves of one trial: the first metrics that have two values."""
MOST_POINTS = 200
"""Of one curve."""
MOST_TEXT = 60_000
"""Characters of the attribute, as Optuna writes it: MySQL's columns of text have room for it."""

Curves = dict[str, list[tuple[int, float]]]


class MetricRecorder:
    """What one trial logs, as curves. Its size is bounded by the number of names, not of values."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, float]] = {}
        self._curves: dict[str, _Curve] = {}

    def add(self, numbers: Mapping[str, float], step: int | None) -> bool:
        """Adds a value of each; without a step, the one after the last. False where one has no place for a curve."""
        has_place = True
        for name, value in numbers.items():
            curve = self._curves.get(name)
            if curve is None and name not in self._first:
                self._first[name] = (0 if step is None else step, value)
                continue
            if curve is None and len(self._curves) < MOST_METRICS:
                curve = self._curves[name] = _Curve(*self._first[name])
            if curve is None:
                has_place = False
            else:
                curve.add(step, value)
        return has_place

    def history(self) -> MetricHistory:
        """The curves so far, each by step; of a step that was logged twice the later value."""
        return {name: curve.points() for name, curve in list(self._curves.items())}


class _Curve:
    """Evenly spaced values of one metric: every n-th, n doubled whenever there are too many of them."""

    __slots__ = ("_count", "_every", "_kept", "_newest")

    def __init__(self, step: int, value: float) -> None:
        self._newest = (step, value)
        self._kept = [self._newest]
        self._count = self._every = 1

    def add(self, step: int | None, value: float) -> None:
        self._newest = (min(self._newest[0] + 1, LARGEST_STEP) if step is None else step, value)
        if self._count % self._every == 0:
            self._kept.append(self._newest)
            if len(self._kept) == MOST_POINTS:
                del self._kept[1::2]
                self._every *= 2
        self._count += 1

    def points(self) -> tuple[tuple[int, float | str], ...]:
        by_step = dict([*self._kept, self._newest])
        return tuple((step, json_number(value) or 0.0) for step, value in sorted(by_step.items()))


def checked_history(given: Mapping[str, Any]) -> MetricHistory:
    """Checks the curves that a trial process has sent. Raises ValueError, TypeError for what no recorder gives."""
    if len(given) > MOST_METRICS or any(len(points) > MOST_POINTS for points in given.values()):
        raise ValueError(f"more than {MOST_METRICS} curves, or one of more than {MOST_POINTS} points")
    if not all(map(can_name, given)):
        raise ValueError(f"curves named {', '.join(map(repr, given))[:200]}")
    return {name: tuple(_point(*point) for point in points) for name, points in given.items()}


def curves_of(history: object) -> Curves:
    """Stored curves with numbers, as people use them; without what is no curve. Never fails.

    They may be from another program or from a backup file that was edited, so nothing of them is relied on.
    """
    if not isinstance(history, Mapping):
        return {}
    curves: Curves = {}
    for name, points in history.items():
        with suppress(ValueError, TypeError, OverflowError):
            curves[name] = [_stored_point(*point) for point in points]
    return curves


def history_text(history: MetricHistory) -> str:
    """As Optuna keeps it, thinned further where it is too long; each curve keeps its first and its newest point.

    As text, so that a program that reads all trials of a study has no lists to make or to copy.
    """
    text = json.dumps(history)
    while len(json.dumps(text)) > MOST_TEXT:
        history = _smaller(history)
        text = json.dumps(history)
    return text


def curves_in(text: object) -> Curves:
    """The inverse of `history_text`; nothing of what another program wrote."""
    try:
        return curves_of(json.loads(str(text)))
    except (ValueError, RecursionError):
        return {}


def _smaller(history: MetricHistory) -> MetricHistory:
    """With about half of the points; with half of the curves where no curve can have fewer points."""
    if all(len(points) <= 2 for points in history.values()):
        return dict(islice(history.items(), len(history) // 2))
    return {name: (*points[:-1:2], *points[-1:]) for name, points in history.items()}


def _stored_point(step: Any, value: Any) -> tuple[int, float]:
    if type(step) is not int:
        raise TypeError(f"a value at the step {step!r:.100}")
    return step, float(value)


def _point(step: Any, value: Any) -> tuple[int, float | str]:
    if type(step) is not int or not 0 <= step <= LARGEST_STEP:
        raise ValueError(f"a value at the step {step!r:.100}")
    return step, json_number(float(value)) or 0.0
