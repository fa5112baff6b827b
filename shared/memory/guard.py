"""The guard of one trial's memory: each sample in, one verdict out. No clock, no file, no logging.

Judges every limit that holds for the trial by itself and returns the most severe verdict, so that more pressure
anywhere never has a milder answer. It stops no trial: its caller does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from highnoon.shared.domain.states import Cause, StrEnum
from highnoon.shared.memory.policy import (
    HORIZON_S,
    WINDOW,
    MemoryPolicy,
    Points,
    SwapMonitor,
    Trend,
    exhausted_in_s,
    slope,
    trend_of,
)
from highnoon.shared.memory.poller import MemorySample, Scope

_CALM_CHECKS = 3
"""One check below the margin may be an allocator between two batches; three in a row are an end."""

_STALLED_SHARE = 0.6
"""The pressure at which systemd-oomd kills by default (DefaultMemoryPressureLimit=60%, of the same figure)."""

_CHECKS_AHEAD = 1.5
"""When memory will be full before the check after the next, the next is too late for a stop."""

_MOST = 0.5
"""A trial that holds half of a limit is responsible, whichever other process grows."""

_MATTERS = 0.1
"""A trial that holds less frees too little to help, even if it is the largest: other tenants may be invisible."""

_GROWTH_SHARE = 0.5
"""Growth that would take half of what is left within the horizon is the reason of the pressure."""

_NOISE_BYTES = 16 << 20
"""Python and its allocator vary by some megabytes."""


class Kind(IntEnum):
    """From mild to severe: a larger one always outweighs a smaller one."""

    OK = 0
    WARN = 1
    MITIGATE = 2
    STOP = 3
    """End the trial at its next step or report."""
    KILL = 4
    """End all its processes now; only from outside."""


class Mitigation(StrEnum):
    """What may help before a stop is needed, in this order."""

    GC = "gc"
    """Collect garbage and return freed pages to the kernel."""
    SMALLER_PREFETCH = "smaller_prefetch"
    """Let the input pipeline hold fewer batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`kind` decides; the rest explains it. Above the threshold `count` of `grace` steps are used up."""

    kind: Kind
    cause: str = ""
    """The class of a stop, for machines, as `memory_guard` or `swap`; only with STOP and KILL."""
    reason: str = ""
    """A guard's is a name, a colon and a number with its unit, as `sustained_high_memory_rising:96.2%`."""
    usage: float = 0.0
    process_bytes: int = 0
    trend: Trend = Trend.STABLE
    count: int = 0
    grace: int = 0
    is_normalized: bool = False
    """An episode has just ended; only with OK."""
    mitigation: Mitigation | None = None
    is_own: bool = True
    """False when the stop of another trial may be enough."""
    peak_bytes: int = 0
    limit_bytes: int = 0
    swap_used_bytes: int = 0

    @property
    def message(self) -> str:
        """What a person reads beside the outcome: the cause, then the reason; empty without a cause."""
        return f"{self.cause}: {self.reason}" if self.cause else ""

    @property
    def excess(self) -> float:
        """By how much the peak was above the limit, as a share of it; below 0 when the stop came in time."""
        return self.peak_bytes / self.limit_bytes - 1 if self.limit_bytes else 0.0


class MemoryGuard:
    """Keeps what it needs of earlier samples. `baseline` is taken at the start: what is so then is no change."""

    def __init__(self, policy: MemoryPolicy, baseline: MemorySample) -> None:
        self.policy = policy
        self._history: deque[MemorySample] = deque([baseline], maxlen=WINDOW)
        self._episodes: dict[str, _Episode] = {}
        self._swap = SwapMonitor(baseline)
        self.peak_bytes = max(baseline.peak_bytes, baseline.process_bytes)
        """The most that the trial has held so far, between the checks as well."""

    def judge(self, sample: MemorySample) -> Verdict:
        """The verdict on `sample`, which must not be older than the one before. Never raises."""
        self._history.append(sample)
        self.peak_bytes = max(self.peak_bytes, sample.peak_bytes, sample.process_bytes)
        verdicts = [
            self._episodes.setdefault(scope.name, _Episode(self.policy)).judge(self._history, scope)
            for scope in sample.scopes
        ]
        swapped = self._swap_verdict(sample)
        if swapped is not None:
            verdicts.append(swapped)
        worst = max(verdicts, key=_severity, default=Verdict(kind=Kind.OK))
        return replace(worst, peak_bytes=self.peak_bytes, swap_used_bytes=sample.swap_used_bytes)

    def headroom_bytes(self, sample: MemorySample) -> int:
        """How far memory is from where frequent checks begin; 0 from there on.

        Also 0 where no limit can be read: there only swap is watched.
        """
        rooms = (self.policy.close_bytes(scope.limit_bytes) - scope.used_bytes for scope in sample.scopes)
        return max(0, min(rooms, default=0))

    def is_short(self, sample: MemorySample) -> bool:
        """True where an episode may begin or goes on: worth an exact and expensive sample."""
        return any(scope.used_bytes >= self.policy.calm_bytes(scope.limit_bytes) for scope in sample.scopes)

    def _swap_verdict(self, sample: MemorySample) -> Verdict | None:
        grown = self._swap.spike(sample, is_short=self.is_short(sample))
        if grown is None:
            return None
        fullest = max(sample.scopes, key=lambda scope: scope.usage, default=None)
        return Verdict(
            kind=Kind.STOP,
            cause=Cause.SWAP,
            reason=f"swap_spike:{grown >> 20}MB",
            usage=fullest.usage if fullest else 0.0,
            process_bytes=sample.process_bytes,
            is_own=False,
            limit_bytes=fullest.limit_bytes if fullest else 0,
        )


def _severity(verdict: Verdict) -> tuple[int, bool, float]:
    """The end of an episode is reported when nothing is worse; among equals the fullest limit counts."""
    return verdict.kind, verdict.is_normalized, verdict.usage


class _Episode:
    """One limit over time: from the first check above the threshold until the pressure is over, or the trial is.

    Owns count, grace and hysteresis.
    """

    def __init__(self, policy: MemoryPolicy) -> None:
        self._policy = policy
        self._begin()

    def _begin(self) -> None:
        self._count = 0
        self._calm_checks = 0
        self._was_extended = False
        self._mitigated: list[Mitigation] = []

    def judge(self, history: Sequence[MemorySample], scope: Scope) -> Verdict:
        """The verdict on the newest sample, the last in `history`. Below the threshold it is always OK."""
        policy, limit = self._policy, scope.limit_bytes
        if scope.used_bytes < policy.threshold_bytes(limit):
            return self._below(scope)
        self._calm_checks = 0
        self._count = min(self._count + 1, policy.grace_steps)
        used = [(sample.at_s, past.used_bytes) for sample in history if (past := sample.scope(scope.name))]
        surplus = scope.used_bytes - policy.calm_bytes(limit)
        trend = trend_of(slope(used), free_bytes=scope.free_bytes, surplus_bytes=surplus)
        warning = Verdict(
            kind=Kind.WARN,
            usage=scope.usage,
            process_bytes=history[-1].process_bytes,
            trend=trend,
            count=self._count,
            grace=policy.grace_steps,
            is_own=scope.is_own,
            limit_bytes=limit,
        )
        return self._responsible(warning, history, scope, used) if is_responsible(history, scope) else warning

    def _below(self, scope: Scope) -> Verdict:
        is_calm = scope.used_bytes <= self._policy.calm_bytes(scope.limit_bytes)
        self._calm_checks = self._calm_checks + 1 if is_calm else 0
        is_over = self._count > 0 and self._calm_checks >= _CALM_CHECKS
        if is_over:
            self._begin()
        return Verdict(kind=Kind.OK, usage=scope.usage, is_normalized=is_over)

    def _responsible(self, warning: Verdict, history: Sequence[MemorySample], scope: Scope, used: Points) -> Verdict:
        reason = self._urgent(history, scope, used)
        mitigation = None if reason else self._next_mitigation()
        if mitigation is not None:
            self._mitigated.append(mitigation)
            return replace(warning, kind=Kind.MITIGATE, mitigation=mitigation)
        if not reason and self._count < self._policy.grace_steps:
            return warning
        if not reason and warning.trend is Trend.FALLING and not self._was_extended:
            # Half of the grace again, once: a fall that does not end the pressure is no relief.
            self._was_extended, self._count = True, self._policy.grace_steps // 2
            return replace(warning, count=self._count)
        reason = reason or f"sustained_high_memory_{warning.trend}:{scope.usage:.1%}"
        return replace(warning, kind=Kind.STOP, cause=Cause.MEMORY_GUARD, reason=reason)

    def _urgent(self, history: Sequence[MemorySample], scope: Scope, used: Points) -> str:
        """The reason why the trial must stop before the end of its grace; empty when it need not."""
        now = history[-1]
        if scope.used_bytes >= self._policy.ceiling_bytes(scope.limit_bytes):
            return f"memory_ceiling:{scope.usage:.1%}"
        if now.stalled_share >= _STALLED_SHARE:
            return f"memory_stall:{now.stalled_share:.1%}"
        left_s = exhausted_in_s(used, scope.free_bytes)
        if len(history) > 1 and left_s <= _CHECKS_AHEAD * (now.at_s - history[-2].at_s):
            return f"memory_exhausted_in:{left_s:.1f}s"
        return ""

    def _next_mitigation(self) -> Mitigation | None:
        """Garbage first; at half of the grace the prefetch. None when all was tried, or it is too early."""
        if Mitigation.GC not in self._mitigated:
            return Mitigation.GC
        grace = self._policy.grace_steps
        if Mitigation.SMALLER_PREFETCH not in self._mitigated and grace > self._count >= grace // 2:
            return Mitigation.SMALLER_PREFETCH
        return None


def is_responsible(history: Sequence[MemorySample], scope: Scope) -> bool:
    """Whether the pressure comes from this trial: it fills the scope alone, holds most of it, is the largest that
    matters, or grows. A trial is never stopped for what its neighbour takes."""
    now = history[-1]
    if scope.is_own or now.process_bytes >= _MOST * scope.limit_bytes:
        return True
    if now.is_largest and now.process_bytes >= _MATTERS * scope.limit_bytes:
        return True
    if now.process_bytes - history[0].process_bytes < _NOISE_BYTES:
        return False
    growth = slope([(sample.at_s, sample.process_bytes) for sample in history])
    return growth > 0 and growth * HORIZON_S >= _GROWTH_SHARE * scope.free_bytes
