"""The reports of one attempt that the database does not have yet: bounded in number, the newest always among them.

Training never waits for the database, and no trial may fill it: a trial that reports more often than is stored loses
every second of the reports that wait, and after many thousand all but the newest at each write.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from highnoon.shared.domain.trial import Report

MOST_WAITING = 1_000
MOST_WRITTEN = 10_000
"""Of one attempt; beyond it each write has one report."""


class ReportBuffer:
    """The monitor adds, the I/O thread writes. The first report of a step stays, as in Optuna."""

    def __init__(self) -> None:
        self._reports: dict[int, Report] = {}
        self._written = 0
        self._lock = threading.Lock()

    def add(self, report: Report) -> bool:
        """False when others were left out for it."""
        with self._lock:
            self._reports.setdefault(report.step, report)
            if len(self._reports) <= max(1, min(MOST_WAITING, MOST_WRITTEN - self._written)):
                return True
            reports = [*self._reports.values()]
            kept = reports[-1:] if self._written >= MOST_WRITTEN else reports[(len(reports) - 1) % 2 :: 2]
            self._reports = {one.step: one for one in kept}
            return False

    def waiting(self) -> tuple[Report, ...]:
        """In the order in which they came."""
        with self._lock:
            return tuple(self._reports.values())

    def remove(self, written: Sequence[Report]) -> None:
        """The database has these."""
        with self._lock:
            self._written += len(written)
            for report in written:
                self._reports.pop(report.step, None)
