"""The guard of one trial's memory: each sample in, one verdict out. No clock, no file, no logging.

Judges every limit that holds for the trial by itself and says the most severe of it, so that more pressure anywhere
never has a milder answer. It stops nobody: who asked does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from highnoon.shared.memory.episode import Episode
from highnoon.shared.memory.policy import MemoryPolicy
from highnoon.shared.memory.sample import MemorySample, Scope
from highnoon.shared.memory.swap import SwapWatch
from highnoon.shared.memory.trend import WINDOW
from highnoon.shared.memory.verdict import Kind, Verdict


class MemoryGuard:
    """Remembers what it needs of the samples before. `baseline` is taken at the start: what was so then is no news."""

    def __init__(self, policy: MemoryPolicy, baseline: MemorySample) -> None:
        self.policy = policy
        self._history: deque[MemorySample] = deque([baseline], maxlen=WINDOW)
        self._episodes: dict[str, Episode] = {}
        self._swap = SwapWatch(baseline)
        self._peak_bytes = max(baseline.peak_bytes, baseline.process_bytes)

    @property
    def peak_bytes(self) -> int:
        """The most that the trial has held so far, between the checks as well."""
        return self._peak_bytes

    def judge(self, sample: MemorySample) -> Verdict:
        """The verdict on `sample`, which must not be older than the one before. Never raises."""
        self._history.append(sample)
        self._peak_bytes = max(self._peak_bytes, sample.peak_bytes, sample.process_bytes)
        verdicts = [self._on_scope(scope) for scope in sample.scopes]
        swapped = self._on_swap(sample)
        if swapped is not None:
            verdicts.append(swapped)
        worst = max(verdicts, key=_severity, default=Verdict(kind=Kind.OK))
        return replace(worst, peak_bytes=self._peak_bytes, swap_used_bytes=sample.swap_used_bytes)

    def headroom_bytes(self, sample: MemorySample) -> int:
        """How far memory is from where a threshold may be reached soon; 0 from there on, where often is not too often.

        Also 0 where no limit can be seen: there swap alone is watched.
        """
        rooms = (self.policy.close_bytes(scope.limit_bytes) - scope.used_bytes for scope in sample.scopes)
        return max(0, min(rooms, default=0))

    def is_short(self, sample: MemorySample) -> bool:
        """True where an episode may begin or goes on: worth an exact and dear sample."""
        return any(scope.used_bytes >= self.policy.calm_bytes(scope.limit_bytes) for scope in sample.scopes)

    def _on_scope(self, scope: Scope) -> Verdict:
        episode = self._episodes.setdefault(scope.name, Episode(self.policy))
        return episode.judge(self._history, scope)

    def _on_swap(self, sample: MemorySample) -> Verdict | None:
        grown = self._swap.spike(sample, is_short=self.is_short(sample))
        if grown is None:
            return None
        tightest = max(sample.scopes, key=lambda scope: scope.usage, default=None)
        return Verdict(
            kind=Kind.STOP,
            usage=tightest.usage if tightest else 0.0,
            process_bytes=sample.process_bytes,
            reason=f"swap_spike:{grown >> 20}MB",
            is_own=False,
            limit_bytes=tightest.limit_bytes if tightest else 0,
        )


def _severity(verdict: Verdict) -> tuple[int, bool, float]:
    """An ended episode is told when nothing worse is; among equals the fullest limit speaks."""
    return verdict.kind, verdict.is_normalized, verdict.usage
