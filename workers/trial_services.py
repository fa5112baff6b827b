"""The supervisor's duties to a running trial: its reports, its pruner, its lease.

Training never waits for the database: reports are kept and written in bulk, an outage is answered with "go on",
and everything that could not be written is written before the outcome is settled.
"""

from __future__ import annotations

import logging

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.lease import Lease, Wish
from highnoon.shared.domain.trial import Report
from highnoon.shared.memory.process_memory import process_memory
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.leases import Leases, Progress
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.workers.node import Node
from highnoon.workers.trial.launch import Running

_log = logging.getLogger("highnoon.workers.trial_services")


class TrialDuties:
    """Implements `watch.Duties` for one attempt. Raises LeaseLost out of `renew` only."""

    def __init__(self, node: Node, leases: Leases, lease: Lease, study: OptunaStudy, trial_id: int) -> None:
        self._node = node
        self._leases = leases
        self._lease = lease
        self._study = study
        self._trial_id = trial_id
        self._running: Running | None = None
        self._unwritten: list[Report] = []
        self._step: int | None = None

    def attend(self, running: Running) -> None:
        """The trial now runs: its memory is part of each renewal."""
        self._running = running

    def take_report(self, report: Report) -> None:
        """Kept until the pruner is asked, the lease renewed, or the trial over."""
        self._unwritten.append(report)
        self._step = report.step

    def should_prune(self) -> bool:
        """The pruner's answer; False during an outage: no trial ends because a database is away."""
        try:
            self.write_reports()
            return self._study.should_prune(self._trial_id)
        except ServiceUnavailable as error:
            self._note_outage("should_prune", error)
            return False

    def renew(self) -> Wish | None:
        """One statement. Raises LeaseLost when somebody else owns the ticket."""
        try:
            wish = self._leases.renew(self._lease, Progress(step=self._step, rss_bytes=self._memory_bytes()))
            self.write_reports()
        except ServiceUnavailable as error:
            self._note_outage("renew", error)
            return None
        return wish

    def must_hand_back(self) -> bool:
        """The node's drain order and its deadline."""
        return self._node.drain.is_due()

    def write_reports(self) -> None:
        """Raises ServiceUnavailable, and then still keeps them."""
        if self._unwritten:
            self._study.report_many(self._trial_id, self._unwritten)
            self._unwritten = []

    def _memory_bytes(self) -> int | None:
        if self._running is None or self._running.pid is None:
            return None
        memory = process_memory(self._running.pid)
        return None if memory is None else memory.pss_bytes

    def _note_outage(self, during: str, error: ServiceUnavailable) -> None:
        event(
            _log,
            "outage",
            level=logging.WARNING,
            ticket=self._lease.ticket_id,
            attempt=self._lease.attempt,
            during=during,
            error=error,
        )
