"""Why a supervisor does not start tickets of a study: in its log, and kept with the study for people.

Decides nothing about the tickets. No method raises for a database that is away: an attempt may have started, and its
lease must not be lost. Runs in the I/O thread.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.domain.lease import Candidate
from highnoon.shared.domain.tracebacks import storable
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.control import Control
from highnoon.workers.node import Node

_log = logging.getLogger("highnoon.workers.claim")

_REPORTED_AGAIN_S = 30.0
"""Between two records of a fault for which tickets are declined: the coordinator forgets it after a minute."""


class ClaimFaults:
    """Of one supervisor."""

    def __init__(self, node: Node, control: Control) -> None:
        self._node, self._control = node, control
        self._reported: dict[tuple[int, int], float] = {}
        self._logged: set[tuple[int, int, type[Exception]]] = set()

    def report_plugin(self, candidate: Candidate, fault: str) -> None:
        """What is wrong with a sampler or pruner of the study's own."""
        self.log("plugin_failed", candidate, reason=fault)
        with suppress(HighNoonError):
            self._control.record_plugin_fault(candidate.study_id, self._here_and_now(fault))

    def report_declined(self, candidate: Candidate, error: Exception) -> None:
        """Why tickets are declined: logged, and recorded again as long as it lasts."""
        self.log_declined(candidate, error)
        key = candidate.study_id, candidate.spec_version
        reported_at = self._reported.get(key)
        if reported_at is None or time.monotonic() >= reported_at + _REPORTED_AGAIN_S:
            self._reported[key] = time.monotonic()
            described = str(error) if isinstance(error, HighNoonError) else f"{type(error).__name__}: {error}"
            with suppress(HighNoonError):
                self._control.record_declined(candidate.study_id, self._here_and_now(described))

    def log_declined(self, candidate: Candidate, error: Exception) -> None:
        """Once for each version of a study and kind of error: a newer node may start its ticket, or this one later."""
        key = candidate.study_id, candidate.spec_version, type(error)
        if key not in self._logged:
            self._logged.add(key)
            self.log("declined", candidate, reason=error)
            if not isinstance(error, HighNoonError):
                _log.error("the fault behind it", exc_info=error)

    def log(self, action: str, candidate: Candidate, **fields: object) -> None:
        """One line, with study, ticket and worker."""
        ids = {"study": candidate.study_name, "ticket": candidate.ticket_id, "worker": self._node.worker_id[:8]}
        event(_log, action, level=logging.WARNING, **ids, **fields)

    def _here_and_now(self, fault: str) -> str:
        return f"{storable(fault)} ({self._node.host}, {time.strftime('%H:%M:%S')})"
