"""Points that a person enqueues before `optimize` has opened the study that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.trial import Params

if TYPE_CHECKING:
    from highnoon.shared.store.optuna_study import OptunaStudy


def as_point(params: Mapping[str, Any]) -> Params:
    """Returns a copy of the parameters. Raises InvalidInput for what is no dict of names and values."""
    if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
        message, hint = "must be a dict of parameters", 'Write for example {"learning_rate": 1e-4}.'
        raise InvalidInput.of("enqueue()", "params", message, value=params, hint=hint)
    return dict(params)


class UnstoredPoints:
    """Points that are not stored yet. Each is stored once."""

    def __init__(self) -> None:
        self._points: list[Params] = []

    def add(self, point: Params) -> None:
        """Appends a point."""
        self._points.append(point)

    def store(self, study: OptunaStudy) -> None:
        """Enqueues all. Raises InvalidInput with every mistake in any of them: then none is stored, all are dropped."""
        points, self._points = self._points, []
        problems: list[Problem] = []
        for point in points:
            try:
                study.check_point(point)
            except InvalidInput as invalid:
                problems += invalid.problems
        if problems:
            raise InvalidInput("enqueued points: none was stored; enqueue the valid ones again", problems)
        self._points = points
        while self._points:  # those behind an outage of the database stay
            study.enqueue(self._points[0])
            del self._points[0]
