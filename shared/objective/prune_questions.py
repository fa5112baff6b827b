"""Whether a trial process must ask its supervisor if it is to be pruned.

A question and its answer take two switches of the processor, which is much for a trial with short steps. With each
answer come the reports that certainly change nothing (`SafeReports`); for those there is no question.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from highnoon.shared.domain.safe_reports import SafeReports


class PruneQuestions:
    """Follows the reports of this trial. Where they do not come in the order of their steps, each time is asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step = -1
        self._lowest = self._highest = math.nan
        self._is_in_order = True
        self._safe: SafeReports | None = None
        self._until = 0.0

    def note(self, value: float, step: int) -> None:
        """A report has been sent. NaN is no best value, as in Optuna."""
        self._is_in_order = self._is_in_order and step > self._step
        self._step = step
        if not math.isnan(value):
            self._lowest = value if math.isnan(self._lowest) else min(self._lowest, value)
            self._highest = value if math.isnan(self._highest) else max(self._highest, value)

    def can_skip(self) -> bool:
        """True when the answer can only be "go on"."""
        safe = self._safe
        if safe is None or not self._is_in_order or self._step < 0 or self._clock() >= self._until:
            return False
        return safe.allow(self._step, self._highest if safe.maximizes else self._lowest)

    def set_safe_reports(self, safe: Mapping[str, Any] | None) -> None:
        """What came with an answer; None where nothing is known beyond what came before."""
        if safe is not None:
            self._safe = SafeReports.from_json(safe)
            self._until = self._clock() + self._safe.for_s
