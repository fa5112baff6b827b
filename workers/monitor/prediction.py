"""How much memory the next trial of a study will want, and whether a node has room for it. Pure.

Said before the trial is claimed, and so before its parameters are known: an upper quantile of what the study's
trials took so far. A ticket that is tried again has the same parameters, and takes what it took before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_QUANTILE = 0.9
_MARGIN = 1.1
"""What comes may be somewhat larger than all that came; what is wrong by more, the node's watchdog ends."""

LEAST_PEAKS = 3
"""Fewer say nothing about a search space; until then a trial is taken to fill its share, as without measuring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """Bytes. `trials_bytes` is for all trials of the node together, `free_bytes` what it has left at this moment."""

    trials_bytes: int
    free_bytes: int


def predicted_peak_bytes(peaks: Sequence[int], own_peaks: Sequence[int], *, unknown_bytes: int) -> int:
    """Of the next trial, by the peaks of its study's trials and of earlier attempts at the same ticket."""
    if own_peaks:
        return round(max(own_peaks) * _MARGIN)
    if len(peaks) < LEAST_PEAKS:
        return unknown_bytes
    return round(sorted(peaks)[math.ceil(_QUANTILE * len(peaks)) - 1] * _MARGIN)


def has_room(room: NodeRoom, wanted_bytes: int, reserved_bytes: Sequence[int]) -> bool:
    """Whether a trial of `wanted_bytes` fits beside those for which `reserved_bytes` are kept; alone it always does.

    What runs may not have grown to what it will take yet, and others may live on the machine: both must leave room.
    """
    if not reserved_bytes:
        return True
    return sum(reserved_bytes) + wanted_bytes <= room.trials_bytes and wanted_bytes <= room.free_bytes
