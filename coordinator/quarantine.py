"""Which nodes are put into quarantine: they get nothing more until a person reinstates them. Pure.

A broken node fails fast, and would use up all tickets of a study; a broken study fails on every node. So a node is
compared with the others at the same studies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from highnoon.shared.store.node_queries import Streak

_RARE = 1e-5
"""How improbable a streak must be at the others' rate: six in a row beside five successes, seventeen if half fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """A node that fails where others do not."""

    worker_id: str
    reason: str


def quarantined(streaks: Sequence[Streak], at_least: int) -> Iterator[Quarantine]:
    """`at_least`: no node is judged by fewer failures in a row; 0 judges none."""
    for streak in streaks:
        if 0 < at_least <= streak.length and _is_unlikely(streak):
            causes = ", ".join(f"{cause} {count}" for cause, count in streak.causes.items())
            yield Quarantine(
                worker_id=streak.worker_id,
                reason=f"its last {streak.length} attempts failed ({causes}); "
                f"on other nodes {streak.others_failed} of {streak.others_ended}",
            )


def _is_unlikely(streak: Streak) -> bool:
    """The others' rate by Laplace's rule of succession, since few attempts say little. One of them must succeed."""
    if streak.others_failed == streak.others_ended:
        return False
    rate = (streak.others_failed + 1) / (streak.others_ended + 2)
    return bool(rate**streak.length < _RARE)
