"""The guide's log lines, word for word: a public contract. Numbers in MB of 2^20 bytes, as the guide's."""

from __future__ import annotations

from collections.abc import Sequence

from highnoon.shared.memory.policy import MemoryPolicy
from highnoon.shared.memory.verdict import Kind, Verdict

PREFIX = "[Memory] "


def start_line(policy: MemoryPolicy) -> str:
    """Once, when a manager is made."""
    if policy.limit_bytes is None:
        return f"{PREFIX}EnterpriseMemoryManager: memory cannot be seen here, the guard is off"
    threshold = policy.threshold_bytes(policy.limit_bytes)
    return (
        f"{PREFIX}EnterpriseMemoryManager: total={_mb(policy.limit_bytes)}MB, "
        f"warning_threshold={_mb(threshold)}MB ({threshold / policy.limit_bytes:.0%})"
    )


def missing_line(missing: Sequence[str]) -> str:
    """Once, beside it."""
    return f"{PREFIX}Not watched here: {'; '.join(missing)}"


def lines_of(verdict: Verdict) -> list[str]:
    """What one verdict says in the log; nothing for an ordinary OK."""
    if verdict.kind is Kind.OK:
        if not verdict.is_normalized:
            return []
        return [f"{PREFIX}Memory normalized: {verdict.usage:.1%}, resetting warning count"]
    lines = []
    if verdict.grace:
        lines.append(
            f"{PREFIX}WARNING ({verdict.count}/{verdict.grace}): System memory at {verdict.usage:.1%} "
            f"(process={_mb(verdict.process_bytes)}MB), trend={verdict.trend}"
        )
    if verdict.kind is Kind.STOP:
        lines.append(f"{PREFIX}CRITICAL: {_stop(verdict)}")
    return lines


def stop_message(verdict: Verdict) -> str:
    """What a stopped trial is recorded with: the cause for machines, then reason, peak and limit."""
    sizes = f"peak {_mb(verdict.peak_bytes)}MB, limit {_mb(verdict.limit_bytes)}MB"
    return f"{verdict.cause}: {verdict.reason} ({sizes})"


def _stop(verdict: Verdict) -> str:
    if verdict.cause == "swap":
        change = verdict.reason.partition(":")[2]
        return f"Swap spike of {change}, {_mb(verdict.swap_used_bytes)}MB in use, stopping"
    return f"stopping, {verdict.reason}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f}"
