"""How many queued tickets have no message for a whole while, and not only at one reading.

A message between Redis and a claim is missing at one reading; a lost one is missing at every reading.
"""

from __future__ import annotations

from collections import deque


class LostMessages:
    """The smallest number of missing messages in the last `window_s` seconds, for one queue."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._readings: deque[tuple[float, int]] = deque()

    def add(self, missing: int, now_s: float) -> int:
        """Takes one reading into account. Returns what was missing at every one; 0 until they span the window."""
        self._readings.append((now_s, max(0, missing)))
        # One reading from before the window stays: what it found held when the window began.
        while len(self._readings) > 1 and self._readings[1][0] <= now_s - self._window_s:
            self._readings.popleft()
        if now_s - self._readings[0][0] < self._window_s:
            return 0
        return min(missing for _, missing in self._readings)
