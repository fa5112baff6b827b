"""Reads the events of one trial at a limited rate: a flood of them must not cost the trial's neighbours a core.

The trial monitor calls it and decides what each event means. A flood slows down its sender; surplus curves are left
out, as each event with curves has all of them so far.
"""

from __future__ import annotations

import time

from highnoon.shared.objective.trial_pipe import Event, Pipe

_FAST_PER_S, _BYTES_OF_ONE = 1000, 1000
"""Beyond so many events in a second there are pauses. Of a large event each 1,000 bytes count as one."""

_PAUSE_S, _BYTES_PER_PAUSE, _LONGEST_PAUSE_S = 0.005, 1 << 16, 0.05
"""Longer after a larger portion, but no longer than the shortest period between two looks at the trial's memory."""

_CURVES_EVERY_S = 1.0
"""Half of the period in which a trial sends its curves."""


class EventReader:
    """Of one trial; counts its events and bytes in the current second."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._second, self._count, self._newest_bytes = 0, 0, 0
        self._curves_at = 0.0

    def read(self, *, is_asking: bool) -> list[Event]:
        """The events that have come; waits for none, but pauses before it reads on in a flood.

        A trial that is asking waits for the answer, so its events are no flood; its bytes are counted all the same.
        """
        time.sleep(self._pause_s())
        before = self._pipe.received_bytes
        events = self._pipe.receive(0.0)
        is_asking = is_asking or any(event["event"] == "ask" for event in events)
        self._add(0 if is_asking else len(events), self._pipe.received_bytes - before)
        return events

    def takes_curves(self) -> bool:
        """Whether curves that have come now are taken; False within a second of the last ones that were."""
        now = time.monotonic()
        if now < self._curves_at:
            return False
        self._curves_at = now + _CURVES_EVERY_S
        return True

    def _add(self, n_events: int, n_bytes: int) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += n_events + n_bytes // _BYTES_OF_ONE
        self._newest_bytes = n_bytes

    def _pause_s(self) -> float:
        if self._count <= _FAST_PER_S or int(time.monotonic()) != self._second:
            return 0.0
        return min(_PAUSE_S * (1 + self._newest_bytes / _BYTES_PER_PAUSE), _LONGEST_PAUSE_S)
