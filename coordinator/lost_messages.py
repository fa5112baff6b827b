"""How many queued tickets no message explains, for a whole while and not only at one look.

A message between Redis and a claim is missing at a look; one that was lost is missing at every look.
"""

from __future__ import annotations

from collections import deque


class LastingDeficit:
    """The smallest deficit of the last `window_s` seconds, for one queue."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._looks: deque[tuple[float, int]] = deque()

    def add(self, missing: int, now_s: float) -> int:
        """Takes one look into account. Returns what was missing at every look; 0 until they span the window."""
        self._looks.append((now_s, max(0, missing)))
        # One look from before the window stays: what it saw held when the window began.
        while len(self._looks) > 1 and self._looks[1][0] <= now_s - self._window_s:
            self._looks.popleft()
        if now_s - self._looks[0][0] < self._window_s:
            return 0
        return min(missing for _, missing in self._looks)
