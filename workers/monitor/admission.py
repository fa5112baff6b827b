"""Whether a node has room for one more trial now: decided before the claim, so that a ticket that waits has no lease.

With admission "slots" a free slot is all that a trial needs. With "measured" its predicted peak must fit beside what
the node's other slots reserve for theirs. A ticket for which there is no room within a second goes back, for another
node or a later moment. Supervisors of a node decide one at a time, under a lock; what each reserves is in its slot's
state file.

The prediction is made before the trial is claimed, and so before its parameters are known: an upper quantile of what
the study's trials took so far. A ticket that is tried again has the same parameters, and takes what it took before.

A trial that runs alone is always admitted. Where other studies never leave the node alone, a study that was put off
for minutes is admitted to wait for just that: the node's exclusive lock then admits no other trial before it.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.memory.poller import MemoryPoller
from highnoon.shared.store.node_queries import StudyPeaks
from highnoon.shared.store.outages import retry_until_available
from highnoon.workers.monitor.memory_policy import NodeLimits
from highnoon.workers.slot_state import SlotStates

_log = logging.getLogger("highnoon.workers.monitor.admission")

MEASURED = "measured"

_WAIT_S = 1.0
"""For room, before a ticket goes back; it also limits how often a study with many tickets asks."""

_LOOK_S = 0.1

_PATIENCE_S = 300.0
"""Longer than a slot is usually kept from a study: only one that would starve waits so long."""

_FORGOTTEN_S = 2 * _PATIENCE_S
"""A ticket that was not offered for so long has run elsewhere meanwhile, and its patience starts again."""

_QUANTILE = 0.9
_MARGIN = 1.1
"""The next peak may be somewhat larger than all before; a trial that is much larger is killed by the node monitor."""

LEAST_PEAKS = 3
"""With fewer nothing is known of a search space; until then a trial is expected to fill its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The right to claim a ticket, and whether its trial must wait until it has the node to itself."""

    must_be_alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _PutOff:
    since: float
    last_offered_at: float


class Admission:
    """Decides for one supervisor; `states` are its node's, `look_up` finds the peaks of a study and a ticket."""

    def __init__(
        self,
        lock: Path,
        slots: int,
        states: SlotStates,
        look_up: Callable[[int, int], StudyPeaks],
        *,
        poller: MemoryPoller | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = lock
        self._slots = slots
        self._states = states
        self._look_up = look_up
        self._poller = poller or MemoryPoller()
        self._clock = clock
        # By study and ticket. Of a ticket, since the study may have had trials elsewhere meanwhile; of one that starves
        # the first tickets are offered again and again.
        self._put_off: dict[tuple[str, int], _PutOff] = {}

    def admit(
        self, message: RunTrial, study_id: int, spec: StudySpec, *, must_end: Callable[[], bool]
    ) -> Admitted | None:
        """The right to claim, reserved in the slot's state; None without room within a second, or when `must_end`."""
        if spec.admission != MEASURED:
            return self._admit_by_slot(spec.trial_memory_limit)
        found = retry_until_available(lambda: self._look_up(study_id, message.ticket), _log)
        deadline = self._clock() + _WAIT_S
        while True:
            admitted = self._decide_alone(message, spec, found)
            if admitted is not None or self._clock() >= deadline or must_end():
                return admitted
            time.sleep(_LOOK_S)

    def _admit_by_slot(self, trial_memory_limit: int | None) -> Admitted:
        """What such a trial may take is reserved as well, so that measured ones leave it room."""
        node_bytes = self._poller.limit_bytes()
        if node_bytes is not None:
            limits = NodeLimits(node_bytes=node_bytes, slots=self._slots)
            self._states.reserve(limits.limit_bytes(trial_memory_limit))
        return Admitted()

    def _decide_alone(self, message: RunTrial, spec: StudySpec, found: StudyPeaks) -> Admitted | None:
        """Under the lock of the node: of two that decide at once, the second reads what the first has reserved."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return self._decide(message, spec, found)
        finally:
            os.close(descriptor)

    def _decide(self, message: RunTrial, spec: StudySpec, found: StudyPeaks) -> Admitted | None:
        node = self._poller.node()
        if node.limit_bytes is None or node.tightest is None:
            return Admitted()
        limits = NodeLimits(node_bytes=node.limit_bytes, slots=self._slots)
        trials_bytes = limits.node_bytes - limits.reserve_bytes
        predicted = predicted_peak_bytes(found.peaks, found.own_peaks, unknown_bytes=limits.share_bytes)
        wanted = min(spec.trial_memory_limit or trials_bytes, predicted)
        free = limits.full_bytes - node.tightest.used_bytes
        fits = has_room(wanted, self._states.reserved_by_others(), trials_bytes=trials_bytes, free_bytes=free)
        if not fits and self._waited_s(message) < _PATIENCE_S:
            return None
        self._put_off = {ticket: one for ticket, one in self._put_off.items() if ticket[0] != message.study}
        self._states.reserve(wanted)
        return Admitted(must_be_alone=not fits)

    def _waited_s(self, message: RunTrial) -> float:
        """Since the ticket was put off here for the first time. Notes that it is offered now."""
        now = self._clock()
        self._put_off = {
            ticket: one for ticket, one in self._put_off.items() if now - one.last_offered_at <= _FORGOTTEN_S
        }
        known = self._put_off.get((message.study, message.ticket))
        since = now if known is None else known.since
        self._put_off[message.study, message.ticket] = _PutOff(since=since, last_offered_at=now)
        return now - since


def predicted_peak_bytes(peaks: Sequence[int], own_peaks: Sequence[int], *, unknown_bytes: int) -> int:
    """Of the next trial, by the peaks of its study's trials and of earlier attempts at the same ticket."""
    if own_peaks:
        return round(max(own_peaks) * _MARGIN)
    if len(peaks) < LEAST_PEAKS:
        return unknown_bytes
    return round(sorted(peaks)[math.ceil(_QUANTILE * len(peaks)) - 1] * _MARGIN)


def has_room(wanted_bytes: int, reserved_bytes: Sequence[int], *, trials_bytes: int, free_bytes: int) -> bool:
    """Whether a trial of `wanted_bytes` fits beside others for which `reserved_bytes` are kept; alone it always does.

    `trials_bytes` is for all trials of the node together, `free_bytes` what it has left at this moment. Running trials
    may not have grown to their reservation yet, and the machine may have other users: both must leave room.
    """
    if not reserved_bytes:
        return True
    return sum(reserved_bytes) + wanted_bytes <= trials_bytes and wanted_bytes <= free_bytes
