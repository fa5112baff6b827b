"""One limit over time: from the first check above the threshold until the pressure is over, or the trial is.

Owns count, grace and hysteresis. What the pressure comes from is `blame`'s to say, where it goes `trend`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from highnoon.shared.memory.blame import is_responsible
from highnoon.shared.memory.policy import MemoryPolicy
from highnoon.shared.memory.sample import MemorySample, Scope
from highnoon.shared.memory.trend import Trend, exhausted_in_s, slope, trend_of
from highnoon.shared.memory.verdict import Easing, Kind, Verdict

_CALM_CHECKS = 3
"""One check below the margin may be an allocator between two batches; three in a row are an end."""

_STALLED_SHARE = 0.6
"""The pressure at which systemd-oomd kills by default (DefaultMemoryPressureLimit=60%, of the same figure)."""

_CHECKS_AHEAD = 1.5
"""When memory will be gone before the check after the next, the next is too late for a stop."""

_Series = Sequence[tuple[float, int]]
"""Seconds and bytes in use, oldest first."""


class Episode:
    """Judges one scope; `judge` is called with each sample in turn, the newest last in `history`."""

    def __init__(self, policy: MemoryPolicy) -> None:
        self._policy = policy
        self._begin()

    def _begin(self) -> None:
        self._count = 0
        self._calm_checks = 0
        self._was_extended = False
        self._eased: list[Easing] = []

    def judge(self, history: Sequence[MemorySample], scope: Scope) -> Verdict:
        """The verdict on the newest sample. Below the threshold it is always OK."""
        if scope.used_bytes < self._policy.threshold_bytes(scope.limit_bytes):
            return self._below(scope)
        self._calm_checks = 0
        self._count = min(self._count + 1, self._policy.grace_steps)
        used = [(sample.at_s, past.used_bytes) for sample in history if (past := sample.scope(scope.name))]
        trend = self._trend(scope, slope(used))
        if not is_responsible(history, scope):
            return self._said(Kind.WARN, history[-1], scope, trend)
        return self._responsible(history, scope, used, trend)

    def _below(self, scope: Scope) -> Verdict:
        is_calm = scope.used_bytes <= self._policy.calm_bytes(scope.limit_bytes)
        self._calm_checks = self._calm_checks + 1 if is_calm else 0
        is_over = self._count > 0 and self._calm_checks >= _CALM_CHECKS
        if is_over:
            self._begin()
        return Verdict(kind=Kind.OK, usage=scope.usage, is_normalized=is_over)

    def _responsible(self, history: Sequence[MemorySample], scope: Scope, used: _Series, trend: Trend) -> Verdict:
        now = history[-1]
        reason = self._urgent(history, scope, used)
        if reason:
            return self._said(Kind.STOP, now, scope, trend, reason=reason)
        easing = self._easing()
        if easing is not None:
            self._eased.append(easing)
            return self._said(Kind.EASE, now, scope, trend, easing=easing)
        if self._count < self._policy.grace_steps or self._is_extended(trend):
            return self._said(Kind.WARN, now, scope, trend)
        return self._said(Kind.STOP, now, scope, trend, reason=f"sustained_high_memory_{trend}:{scope.usage:.1%}")

    def _urgent(self, history: Sequence[MemorySample], scope: Scope, used: _Series) -> str:
        """The reason why not even the grace can be waited for; empty when it can."""
        now = history[-1]
        if scope.used_bytes >= self._policy.ceiling_bytes(scope.limit_bytes):
            return f"memory_ceiling:{scope.usage:.1%}"
        if now.stalled_share >= _STALLED_SHARE:
            return f"memory_stall:{now.stalled_share:.1%}"
        left_s = exhausted_in_s(used, scope.free_bytes)
        if len(history) > 1 and left_s <= _CHECKS_AHEAD * (now.at_s - history[-2].at_s):
            return f"memory_exhausted_in:{left_s:.1f}s"
        return ""

    def _easing(self) -> Easing | None:
        """Garbage first; at half of the grace the prefetch. None when all was tried, or it is not yet time."""
        if Easing.GC not in self._eased:
            return Easing.GC
        if Easing.SMALLER_PREFETCH not in self._eased and self._policy.grace_steps > self._count >= self._half:
            return Easing.SMALLER_PREFETCH
        return None

    @property
    def _half(self) -> int:
        return self._policy.grace_steps // 2

    def _is_extended(self, trend: Trend) -> bool:
        """Falling memory has half of the grace again, once: a fall that does not end the pressure is no relief."""
        if trend is not Trend.FALLING or self._was_extended:
            return False
        self._was_extended, self._count = True, self._half
        return True

    def _trend(self, scope: Scope, bytes_per_s: float) -> Trend:
        surplus = scope.used_bytes - self._policy.calm_bytes(scope.limit_bytes)
        return trend_of(bytes_per_s, free_bytes=scope.free_bytes, surplus_bytes=surplus)

    def _said(
        self,
        kind: Kind,
        now: MemorySample,
        scope: Scope,
        trend: Trend,
        *,
        easing: Easing | None = None,
        reason: str = "",
    ) -> Verdict:
        return Verdict(
            kind=kind,
            usage=scope.usage,
            process_bytes=now.process_bytes,
            trend=trend,
            count=self._count,
            grace=self._policy.grace_steps,
            easing=easing,
            reason=reason,
            is_own=scope.is_own,
            limit_bytes=scope.limit_bytes,
        )
