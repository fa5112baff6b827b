"""What one trial logs: the last value of each metric, and the curves of the first of them.

Curves go to the supervisor while the trial runs, whole and every few seconds, so that a trial that is killed has them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping

from highnoon.shared.domain.metric_history import MOST_METRICS, MetricRecorder
from highnoon.shared.domain.trial import REPEATS, REPEATS_STD, REPEATS_WORST, MetricHistory, json_number
from highnoon.shared.objective.trial_context import AttemptChannel

SEND_EVERY_S = 2.0
"""A shorter trial sends its curves with its result only."""
MOST_BYTES = 500_000
"""Of the last values of one trial, as JSON: with its curves they must fit into one line of its pipe, and a classifier
may log each of 20,000 classes."""
_VALUE_BYTES = 28
"""Of a number, with what stands around it."""

_OURS = frozenset((REPEATS, REPEATS_STD, REPEATS_WORST))

_log = logging.getLogger("highnoon")
_warned: list[str] = []


class MetricLog:
    """Of one trial, with all of its repeats."""

    def __init__(self, channel: AttemptChannel) -> None:
        self._channel = channel
        self._send_at = time.monotonic() + SEND_EVERY_S
        self._recorder = MetricRecorder()
        self._logged_at: dict[str, int | None] = {}
        self._names: set[str] = set()
        self._bytes = 0
        self.last: dict[str, float | str] = {}
        """The newest value of each, as JSON has it."""

    def begin_repeat(self) -> Mapping[str, float | str]:
        """Each repeat has last values of its own; returns those from before it."""
        before, self.last, self._logged_at = self.last, {}, {}
        return before

    def keep(self, numbers: Mapping[str, float], step: int | None = None) -> None:
        """Keeps the newest value of each, by its step where there is one; of the first names, as many as fit."""
        for name, number in numbers.items():
            if not self._has_room_for(name):
                _warn_once("names", "a trial keeps %d bytes of metrics, the first that it logs", MOST_BYTES)
                continue
            last = self._logged_at.get(name)
            if step is None or last is None or step >= last:
                self.last[name] = json_number(number) or 0.0
                self._logged_at[name] = last if step is None else step

    def record_curve(self, numbers: Mapping[str, float], step: int | None) -> None:
        """Adds them to their curves. Raises what sending raises."""
        if not self._recorder.add(numbers, step):
            _warn_once("curves", "a trial has curves of %d metrics; of others the last value is kept", MOST_METRICS)
        now = time.monotonic()
        if now >= self._send_at:
            self._send_at = now + SEND_EVERY_S
            self._channel.keep_history(self.history())

    def history(self) -> MetricHistory:
        """The curves so far."""
        return self._recorder.history()

    def _has_room_for(self, name: str) -> bool:
        if name not in self._names and name not in _OURS:
            size = len(json.dumps(name)) + _VALUE_BYTES
            if self._bytes + size > MOST_BYTES:
                return False
            self._names.add(name)
            self._bytes += size
        return True


def _warn_once(kind: str, sentence: str, number: int) -> None:
    """One line of each kind per process."""
    if kind not in _warned:
        _warned.append(kind)
        _log.warning(f"log(): {sentence}", number)
