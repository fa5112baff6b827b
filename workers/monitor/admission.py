"""Whether a node has room for one more trial now: asked before the claim, so that whoever waits holds no lease.

With admission "slots" a free slot is all that a trial needs. With "measured" its predicted peak must fit beside what
the node's other slots keep for theirs. A ticket that finds no room within a second goes back, for another node or a
later moment. Supervisors of a node decide one at a time, under a lock; what each keeps stands in its slot's note.

A trial that runs alone is always admitted. Where other studies never leave the node alone, a study that was put off
for minutes is admitted to wait for just that: the node's room then lets nobody in before it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.store.node_queries import StudyPeaks
from highnoon.shared.store.outages import retry_until_available
from highnoon.workers.monitor.memory_limits import Allowance
from highnoon.workers.monitor.node_memory import NodeMemory
from highnoon.workers.monitor.prediction import NodeRoom, has_room, predicted_peak_bytes
from highnoon.workers.slot_state import SlotStates

_log = logging.getLogger("highnoon.workers.monitor.admission")

MEASURED = "measured"

_WAIT_S = 1.0
"""For room, before a ticket goes back; also what keeps a study with many tickets from asking without a pause."""

_LOOK_S = 0.1

_PATIENCE_S = 300.0
"""Longer than a slot is usually kept from a study: only one that would starve comes to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The right to claim a ticket, and whether its trial must wait until it has the node to itself."""

    must_be_alone: bool = False


class Admission:
    """That of one supervisor; `notes` are those of its node, `look_up` asks the ledger for a study by its name."""

    def __init__(
        self,
        lock: Path,
        slots: int,
        notes: SlotStates,
        look_up: Callable[[str, int], StudyPeaks | None],
        *,
        memory: NodeMemory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = lock
        self._slots = slots
        self._notes = notes
        self._look_up = look_up
        self._memory = memory or NodeMemory()
        self._clock = clock
        self._put_off_since: dict[str, float] = {}

    def admit(self, message: RunTrial, known: StudySpec | None, *, must_end: Callable[[], bool]) -> Admitted | None:
        """The right to claim, kept in the note; None when there is no room within a second, or `must_end` says yes.

        `known` is the study as this supervisor has it open: one that is not measured costs no look into the ledger.
        """
        if known is not None and known.admission != MEASURED:
            return self._admitted_anyway(known.trial_memory_limit)
        found = retry_until_available(lambda: self._look_up(message.study, message.ticket), _log)
        if found is None or found.spec.get("admission") != MEASURED:
            return self._admitted_anyway(found.spec.get("trial_memory_limit") if found else None)
        return self._admitted_with_room(message.study, found, must_end)

    def _admitted_anyway(self, trial_memory_limit: int | None) -> Admitted:
        """What such a trial may take is kept as well, so that measured ones leave it room."""
        allowance = self._allowance()
        if allowance is not None:
            self._notes.reserve(allowance.limit_bytes(trial_memory_limit))
        return Admitted()

    def _admitted_with_room(self, study: str, found: StudyPeaks, must_end: Callable[[], bool]) -> Admitted | None:
        deadline = self._clock() + _WAIT_S
        while True:
            with self._turn():
                admitted = self._decide(study, found)
            if admitted is not None or self._clock() >= deadline or must_end():
                return admitted
            time.sleep(_LOOK_S)

    def _decide(self, study: str, found: StudyPeaks) -> Admitted | None:
        allowance, node = self._allowance(), self._memory.read()
        if allowance is None or node is None:
            return Admitted()
        room = NodeRoom(
            trials_bytes=allowance.node_bytes - allowance.reserve_bytes,
            free_bytes=allowance.full_bytes - node.used_bytes,
        )
        most = found.spec.get("trial_memory_limit") or room.trials_bytes
        wanted = min(most, predicted_peak_bytes(found.peaks, found.own_peaks, unknown_bytes=allowance.share_bytes))
        fits = has_room(room, wanted, self._notes.reserved_by_others())
        since = self._put_off_since.setdefault(study, self._clock())
        if not fits and self._clock() - since < _PATIENCE_S:
            return None
        del self._put_off_since[study]
        self._notes.reserve(wanted)
        return Admitted(must_be_alone=not fits)

    def _allowance(self) -> Allowance | None:
        limit = self._memory.limit_bytes()
        return None if limit is None else Allowance(node_bytes=limit, slots=self._slots)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Of two that decide at once, the second sees what the first has kept. Ends with this process."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
