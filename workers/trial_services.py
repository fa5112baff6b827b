"""What the supervisor does for a running trial: its reports, its pruner, its lease. No method waits.

Every statement runs in the I/O thread; the monitor submits it and looks at the answer later. Training never waits for
the database: reports are kept and written in bulk, an outage is answered with "go on", and what could not be written
is written when the attempt is finished.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.lease import Lease, Progress, Wish
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.memory.process_memory import process_memory
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.workers.io_thread import IoThread
from highnoon.workers.node import Node
from highnoon.workers.report_buffer import ReportBuffer
from highnoon.workers.suggestions import Suggestions
from highnoon.workers.trial.launch import now_s
from highnoon.workers.trial_files import TrialFiles

T = TypeVar("T")

_log = logging.getLogger("highnoon.workers.trial_services")

_EXACT_WITHIN_S = 0.5
"""How long the pruner's decision on the newest report is waited for, when the one before it is known."""

_DECISION_WITHIN_S = 10.0
"""How long any decision is waited for; then the trial goes on."""

_RENEW_AGAIN_S = 1.0
"""After an outage holders must be quicker than the reaper, which waits for a whole lease."""


class TrialServices:
    """Implements `monitor.services.Services` for one attempt."""

    def __init__(
        self,
        node: Node,
        io: IoThread,
        attempts: Attempts,
        lease: Lease,
        study: OptunaStudy,
        files: TrialFiles,
    ) -> None:
        self._node = node
        self._io = io
        self._attempts = attempts
        self._lease = lease
        self._study = study
        self.files = files
        self.suggestions = Suggestions(io, attempts, lease, study)
        self._pid: int | None = None
        self._reports = ReportBuffer()
        self._step: int | None = None
        self._renewal: Future[Wish] | None = None
        self._renew_at = now_s() + node.settings.renew_s
        self._wish = Wish.CARRY_ON
        self._decision: Future[bool] | None = None
        self._decision_is_current = False
        self._prunes = False
        # How many questions were answered without a decision on the newest report. Nothing is known at first.
        self._behind = 1
        self._asked_at = self._waits_since = 0.0
        self._is_away = False

    @property
    def wakeup_fd(self) -> int:
        """Readable when a statement has ended."""
        return self._io.wakeup_fd

    @property
    def unwritten(self) -> tuple[Report, ...]:
        """The reports that are not in the database yet."""
        return self._reports.waiting()

    def attend(self, pid: int | None) -> None:
        """The trial runs now: its memory is part of each renewal."""
        self._pid = pid

    def take_report(self, report: Report) -> bool:
        """Kept until the pruner is asked, the lease renewed, or the attempt finished; False when some are left out."""
        self._step = report.step
        return self._reports.add(report)

    def ask_should_prune(self) -> None:
        """Submits the reports and the question; a decision that is under way comes first."""
        self._asked_at = now_s()
        self._decision_is_current = False
        if self._decision is None:
            self._submit_decision()

    def prune_answer(self) -> bool | None:
        """The decision on the newest report; the one before it when that takes too long; False during an outage."""
        if self._decision is not None and self._decision.done():
            was_current = self._decision_is_current
            if not self._take_decision():
                return False
            if was_current:
                return self._prunes
            self._submit_decision()
        if now_s() - self._asked_at < _EXACT_WITHIN_S:
            return None
        if self._is_away or self._behind == 0:
            self._behind += 1
            return self._prunes
        if now_s() - self._waits_since < _DECISION_WITHIN_S:
            return None
        self._is_away, self._prunes = True, False
        return False

    def interruption(self) -> Outcome | None:
        """RELEASED when the node's drain is due, CANCELLED when a person wants it. Renews the lease as it falls due.

        Raises LeaseLost when another worker owns the ticket.
        """
        self._io.clear_wakeup()
        self._renew_if_due()
        self.files.advance()
        if self._node.drain.is_due():
            return Outcome(ending=Ending.RELEASED, cause="drain", message="handed back: the worker is shutting down")
        if self._wish is Wish.CANCEL:
            return Outcome(ending=Ending.CANCELLED, cause="cancelled", message="cancelled by a person")
        return None

    def _renew_if_due(self) -> None:
        if self._renewal is not None:
            if not self._renewal.done():
                return
            renewal, self._renewal = self._renewal, None
            try:
                self._wish = renewal.result()
            except ServiceUnavailable as error:
                self._log_outage("renew", error)
                self._renew_at = now_s() + _RENEW_AGAIN_S
        if now_s() >= self._renew_at:
            self._renew_at = now_s() + self._node.settings.renew_s
            self._renewal = self._io.submit(self._renew)

    def _take_decision(self) -> bool:
        """False when the database is away."""
        assert self._decision is not None
        decision, self._decision = self._decision, None
        try:
            self._prunes = decision.result()
        except ServiceUnavailable as error:
            self._log_outage("should_prune", error)
            self._is_away, self._prunes = True, False
            return False
        self._behind, self._is_away = 0, False
        return True

    def _submit_decision(self) -> None:
        self._decision = self._io.submit(self._decide)
        self._decision_is_current = True
        self._waits_since = now_s()

    # The following run in the I/O thread.

    def _renew(self) -> Wish:
        memory = None if self._pid is None else process_memory(self._pid)
        progress = Progress(step=self._step, rss_bytes=None if memory is None else memory.pss_bytes)
        wish = self._write(lambda reports: self._attempts.renew(self._lease, progress, reports))
        # After the lease: where another client holds the trial's row, attributes wait for the next renewal.
        with suppress(ServiceUnavailable):
            self.suggestions.flush()
        return wish

    def _decide(self) -> bool:
        if self.unwritten:
            self._write(lambda reports: self._attempts.add_reports(self._lease, reports))
        self.suggestions.flush()
        return self._study.should_prune(self._lease.trial_id)

    def _write(self, statement: Callable[[tuple[Report, ...]], T]) -> T:
        reports = self.unwritten
        answer = statement(reports)
        self._reports.remove(reports)
        return answer

    def _log_outage(self, during: str, error: ServiceUnavailable) -> None:
        event(
            _log,
            "outage",
            level=logging.WARNING,
            ticket=self._lease.ticket_id,
            attempt=self._lease.attempt,
            during=during,
            error=error,
        )
